"""What makes the pods of modules, Deployments and StatefulSets, each as the API server told it last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from idi.declaration.types import ModuleName
from idi.parts.targets.kubernetes.pods import MODULE

Maker = Mapping[str, Any]


@dataclass(slots=True)
class Makers:
    _latest: dict[str, Maker] = field(default_factory=dict)

    def heard(self, document: Maker, *, gone: bool = False) -> None:
        if gone:
            self._latest.pop(name_of(document), None)
        else:
            self._latest[name_of(document)] = document

    def named(self, name: str) -> Maker | None:
        return self._latest.get(name)

    def of(self, module: ModuleName) -> list[Maker]:
        return [one for one in self._latest.values() if module_of(one) == module]


def name_of(maker: Maker) -> str:
    return str(maker["metadata"]["name"])


def module_of(maker: Maker) -> ModuleName:
    return ModuleName(maker["metadata"]["labels"][MODULE])
