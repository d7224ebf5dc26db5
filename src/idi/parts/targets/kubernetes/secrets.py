"""The Secret objects of modules' revisions: made before the first pod that needs them, and gone after the last one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.targets.interface import Supply
from idi.parts.targets.kubernetes.pods import MODULE, REVISION
from idi.parts.targets.kubernetes.values import Settings, secret_of
from idi.parts.targets.references import needed
from idi.world.types import RevisionSpec


@dataclass(frozen=True, slots=True)
class RevisionSecrets:
    """`supply` gives the values."""

    api: Kubernetes
    namespace: str
    supply: Supply

    async def write(self, settings: Settings, spec: RevisionSpec) -> None:
        """Those of a revision, where it has any."""
        if paths := needed(spec).texts | needed(spec).files:
            for secret in secret_of(settings, spec, await self.supply(spec, paths)):
                await self.api.apply(self._path(secret["metadata"]["name"]), secret, force=True)

    async def keep_only(self, module: ModuleName, revisions: Collection[str]) -> None:
        """Those of other revisions go: their pods cannot start any more."""
        mine = f"{MODULE}={module},app.kubernetes.io/managed-by=idi"
        for secret in (await self.api.listing(self._path(), labels=mine)).items:
            if secret["metadata"]["labels"][REVISION] not in revisions:
                await self.api.delete(self._path(secret["metadata"]["name"]))

    def _path(self, name: str = "") -> str:
        return path("v1", "secrets", self.namespace, name)
