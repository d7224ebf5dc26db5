"""Processes that carry our marker, found without a record.

They come from a crash between starting a process and writing its pid down, or were left by a module that
started something in a session of its own and died. Only a whole marker with this platform's hash makes a
process ours, and only leaders of a session count: the rest belongs to its leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from idi.parts.clients.machine import Machine, Seen
from idi.parts.errors import PartError
from idi.parts.targets.local.process import MARKER, Process, adopt, marker
from idi.parts.targets.local.seats import Occupant


@dataclass(frozen=True, slots=True)
class Marked:
    """A living session leader and the seat that its marker names."""

    name: str
    role: str
    mark: str
    seen: Seen


def marked(machine: Machine, platform_hash: str, processes: Iterable[Seen] | None = None) -> list[Marked]:
    """Every marked session leader of this platform, oldest first."""
    found = []
    for seen in machine.processes() if processes is None else processes:
        if seen.zombie or seen.session != seen.pid:
            continue
        mark = machine.variable_of(seen, MARKER) or ""
        parts = mark.split(":")
        if len(parts) == 3 and parts[0] == platform_hash:
            found.append(Marked(parts[1], parts[2], mark, seen))
    return sorted(found, key=lambda one: (one.seen.started, one.seen.pid))


async def marked_now(machine: Machine, platform_hash: str) -> list[Marked]:
    """The same, from a look that is shared with others who ask now."""
    return marked(machine, platform_hash, (await machine.snapshot()).processes.values())


def living(
    machine: Machine,
    platform_hash: str,
    name: str,
    role: str,
    occupant: Occupant,
    processes: Iterable[Marked],
) -> Process | None:
    """The process of a record, watched again: the one it names, or the one that was about to start."""
    if not occupant.pending:
        mark = marker(platform_hash, name, role)
        return adopt(machine, occupant.pid, occupant.started, mark) if occupant.pid else None
    for one in processes:
        # Whatever else carries this marker was started by the oldest.
        if (one.name, one.role) == (name, role) and one.seen.started >= occupant.started:
            if (process := adopt(machine, one.seen.pid, one.seen.started, one.mark)) is not None:
                return process
    return None


async def end(machine: Machine, strays: Iterable[Marked], grace_s: float) -> None:
    """End them, each with its session, all at once."""
    async with asyncio.TaskGroup() as tasks:
        for stray in strays:
            process = adopt(machine, stray.seen.pid, stray.seen.started, stray.mark)
            if process is not None:
                tasks.create_task(_end(process, grace_s))


async def _end(process: Process, grace_s: float) -> None:
    try:
        with suppress(PartError):
            await process.stop(grace_s)
    finally:
        process.forget()
