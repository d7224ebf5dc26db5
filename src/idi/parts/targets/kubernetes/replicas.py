"""The number of a Deployment's pods, handed over to an autoscaler without a moment of another one.

Where an autoscaler says how many there are, the module's release names no number. A field that its last owner no longer
names goes back to its default, which is one pod, until the autoscaler looks the next time: a moment in which all the
load is one pod's. So another manager owns the number first, as it is. From then on it is the autoscaler's to change,
which asks no owner, and this one only ever raises it to the least that was asked for, which an autoscaler does as well,
a quarter of a minute later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_errors import KubernetesError

MANAGER = "idi-scale"
SLOT = "stable"
TRIES = 5


@dataclass(frozen=True, slots=True)
class Replicas:
    api: Kubernetes
    namespace: str

    async def keep(self, module: str) -> None:
        """What there is stays, whoever named it stops to: before the release that names no number is written."""
        await self._hold(module, lambda now: now)

    async def least(self, module: str, count: int) -> None:
        """No fewer than `count`: after it, where the release is new or the least was raised."""
        await self._hold(module, lambda now: count if now < count else None)

    async def _hold(self, module: str, wanted: Callable[[int], int | None]) -> None:
        name = f"{module}-{SLOT}"
        place = path("apps/v1", "deployments", self.namespace, name)
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
                await self.api.apply(place, document, force=True, manager=MANAGER)
            except KubernetesError as error:
                if error.conflict and tried < TRIES:
                    continue  # it changed in between
                raise
            return


def owned_by_applying(deployment: Mapping[str, Any]) -> bool:
    """Whether its number of pods is some other manager's who applies: whoever applies can also let go of it."""
    return any(
        one.get("operation") == "Apply"
        and one.get("manager") != MANAGER
        and "f:replicas" in one.get("fieldsV1", {}).get("f:spec", {})
        for one in deployment["metadata"].get("managedFields", ())
    )
