"""What all instances of one local target share: where things lie, whom to tell, how to start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from idi.parts.clients.machine import Machine
from idi.parts.targets.interface import Emit, Retire, SidecarSpec, Supply
from idi.parts.targets.local.output import Logs
from idi.parts.targets.local.ports import Free
from idi.parts.targets.local.seats import Records
from idi.parts.targets.local.secrets import SecretFiles
from idi.parts.targets.local.supervisor import Workshop
from idi.world.types import Instance, InstanceId, RevisionSpec

MakeSidecar = Callable[[Instance], SidecarSpec | None]
"""None: no sidecar, which counts as a ready one."""


@dataclass(frozen=True)
class Site:
    """`inherited` is the environment that every process starts from. `taken` are the ports of all seats.
    An instance calls `judge` when it began or ceased to fail, `vacate` when it is gone."""

    workshop: Workshop
    tasks: asyncio.TaskGroup
    emit: Emit
    retire: Retire
    make_sidecar: MakeSidecar
    records: Records
    logs: Logs
    directory: Path
    data_dir: Path
    runtime_dir: Path
    inherited: Mapping[str, str]
    free: Free
    taken: Callable[[], set[int]]
    retire_deadline_s: float
    supply: Supply
    secret_files: SecretFiles
    judge: Callable[[RevisionSpec], None]
    vacate: Callable[[InstanceId], None]

    @property
    def machine(self) -> Machine:
        return self.workshop.machine

    @property
    def platform_hash(self) -> str:
        return self.workshop.platform_hash
