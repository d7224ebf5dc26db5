"""Modules' releases, as the target asks for them: the module's chart by Helm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from idi.declaration.plain import plains
from idi.parts.clients.helm import Helm, charts


@dataclass(slots=True)
class ModuleReleases:
    helm: Helm
    namespace: str

    async def put(self, module: str, values: Mapping[str, Any]) -> None:
        await self.helm.upgrade(module, charts() / "module", self.namespace, values)

    async def render(self, module: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return plains(await self.helm.template(module, charts() / "module", self.namespace, values))

    async def drop(self, module: str) -> None:
        await self.helm.uninstall(module, self.namespace)
