"""The two processes of an instance, each as its supervisor sees it: whom to ask, whom to tell."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from idi.parts.targets.local.instance import LocalInstance


class ModuleRole:
    """The module's side of an instance, as its supervisor sees it."""

    def __init__(self, instance: LocalInstance) -> None:
        self._instance = instance
        self.prepare = instance.prepare_module
        self.started = instance.module_started
        self.died = instance.module_died
        self.looping = partial(instance.looping, "module")
        self.steady = partial(instance.steady, "module")

    def spawning(self) -> None:
        self._instance.spawning(self._instance.seat.module)


class SidecarRole:
    """The sidecar's side."""

    def __init__(self, instance: LocalInstance) -> None:
        self._instance = instance
        self.prepare = instance.prepare_sidecar
        self.started = instance.sidecar_started
        self.died = instance.sidecar_died
        self.looping = partial(instance.looping, "sidecar")
        self.steady = partial(instance.steady, "sidecar")

    def spawning(self) -> None:
        self._instance.spawning(self._instance.seat.sidecar)
