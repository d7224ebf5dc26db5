"""OpenBao started ahead of the change that wants it, while control is still being read.

Control reads its own code for half a second on one core, and what it starts then waits for OpenBao, which
needs a quarter of a second of another. So where `idi up` starts control, and everything OpenBao needs is
there from before, its process is started first. It is what a control that was killed right after starting
it would have left: journalled before, recorded, marked; the target adopts it when the change comes to it.
If none does (the change is refused, control is told to end), it is ended again.

Imported before everything else: it imports only what control needs in any case.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from idi.control.actors import user
from idi.control.settings import Settings
from idi.parts.clients import private_file
from idi.parts.clients.machine import this_machine
from idi.parts.errors import IdiError
from idi.parts.secrets.openbao.binary import BAO
from idi.parts.secrets.openbao.server import Places, opens_by_itself, prepare, server_spec
from idi.parts.store.interface import Actor, Store
from idi.parts.targets.local.part import Part
from idi.parts.targets.local.process import Process, ProcessSpec, marker, spawn
from idi.parts.targets.local.seats import Records
from idi.parts.targets.local.strays import marked
from idi.parts.targets.local.supervisor import Workshop

log = logging.getLogger(__name__)

NAME = "openbao"


class Ahead:
    """An async context manager; leaving it ends what nobody took."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._process: Process | None = None
        paths = settings.paths
        self._machine = this_machine()
        self._records = Records(paths.state / "parts", self._machine.boot())

    async def __aenter__(self) -> Self:
        if self._settings.ahead:
            try:
                await self._start()
            except (IdiError, OSError) as error:  # the change itself will say so, with its way out
                log.warning("OpenBao was not started ahead: %s", error)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            try:
                await self._end(self._process)
            except (IdiError, OSError) as failed:
                log.warning("OpenBao, which nobody asked for, was not ended: %s", failed)

    @property
    def waiting(self) -> bool:
        """Whether it was started and nobody has taken it yet."""
        return self._process is not None

    def take(self) -> bool:
        """It is the target's from now on, by its record; False where nothing was started ahead."""
        process, self._process = self._process, None
        if process is None:
            return False
        process.forget()
        return process.alive

    async def _start(self) -> None:
        paths = self._settings.paths
        places = openbao_places(self._settings)
        if not opens_by_itself(places) or places.socket.exists() or self._records.read():
            return
        if marked(self._machine, paths.hash8):
            return  # left over without a record: whoever adopts ends it first
        process = process_of(places, BAO.find(), paths.logs / "openbao.log")
        workshop = Workshop(self._machine, paths.hash8)
        part = Part(process, workshop, self._records, lambda _event: None, None)
        await self._store.note(
            asker(), "start", {"why": "idi up was asked for; it starts while control does"}, subject=NAME
        )
        for path, content in prepare(places, Path(process.argv[0])).files.items():
            private_file.write(Path(path), content)
        part.spawning()
        mark = marker(paths.hash8, process.name, process.role)
        self._process = spawn(self._machine, process, mark)
        part.started(self._process)

    async def _end(self, process: Process) -> None:
        await self._store.note(asker(), "stop", {"why": "no change came that needs it"}, subject=NAME)
        try:
            await process.stop(5.0)
        finally:
            process.forget()
        self._records.remove(NAME)


def openbao_places(settings: Settings) -> Places:
    paths = settings.paths
    return Places(paths.state, paths.runtime, paths.keys, settings.cluster.seal if settings.cluster else None)


def process_of(places: Places, program: Path, log_file: Path) -> ProcessSpec:
    """OpenBao as a process that the target keeps."""
    spec = server_spec(places, program)
    return ProcessSpec(NAME, "part", spec.argv, spec.environment, places.state, log_file)


def asker() -> Actor:
    """Who ran `idi up`: it started control, as the user that control runs as."""
    return user(os.getuid(), os.getppid())
