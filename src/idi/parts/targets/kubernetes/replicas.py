"""The number of a Deployment's pods, handed over to an autoscaler without a moment of another one.

Where an autoscaler says how many there are, the module's release names no number. A field that its last owner no longer
names goes back to its default, which is one pod, until the autoscaler looks the next time: a moment in which all the
load is one pod's. So another manager owns the number first, as it is. From then on it is the autoscaler's to change,
which asks no owner, and this one only ever raises it to the least that was asked for, which an autoscaler does as well,
a quarter of a minute later. An autoscaler that IDI knows nothing of is treated alike: a number that came by the
subresource `scale` from a program is its business, also when the module changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_errors import KubernetesError
from idi.parts.targets.kubernetes.managers import SCALE_MANAGER, counted_elsewhere, owned_by_applying

SLOT = "stable"
TRIES = 5


@dataclass(frozen=True, slots=True)
class Replicas:
    api: Kubernetes
    namespace: str

    async def others(self, module: str) -> bool:
        """Whether somebody else counts: an autoscaler that is not of its release."""
        there = await self.api.find(self._place(module))
        return there is not None and counted_elsewhere(there)

    async def keep(self, module: str) -> None:
        """What there is stays, whoever named it stops to: before the release that names no number is written."""
        await self._hold(module, lambda now: now)

    async def least(self, module: str, count: int) -> None:
        """No fewer than `count`: after it, where the release is new or the least was raised."""
        await self._hold(module, lambda now: count if now < count else None)

    async def _hold(self, module: str, wanted: Callable[[int], int | None]) -> None:
        name, place = f"{module}-{SLOT}", self._place(module)
        for tried in range(1, TRIES + 1):
            there = await self.api.find(place)
            if there is None:
                return
            now = int(there["spec"].get("replicas", 1))
            count = wanted(now)
            if count is None or (count == now and not owned_by_applying(there)):
                return
            metadata = {
                "name": name,
                "namespace": self.namespace,
                "resourceVersion": there["metadata"]["resourceVersion"],
            }
            document = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": metadata,
                "spec": {"replicas": count},
            }
            try:
                await self.api.apply(place, document, force=True, manager=SCALE_MANAGER)
            except KubernetesError as error:
                if error.conflict and tried < TRIES:
                    continue  # it changed in between
                raise
            return

    def _place(self, module: str) -> str:
        return path("apps/v1", "deployments", self.namespace, f"{module}-{SLOT}")
