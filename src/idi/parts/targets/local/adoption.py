"""What an earlier control left behind: read the records, find the processes, change nothing.

A process is the one of a record when pid, start time and marker agree. Marked processes that no record
accounts for are strays and are ended: the platform's hash in the marker says that they are ours. One
whose seat has a living process is left alone: it was started by that one.
"""

from __future__ import annotations

from dataclasses import dataclass

from idi.parts.targets.local.process import Process
from idi.parts.targets.local.seats import Records, Seat, damaged, decode
from idi.parts.targets.local.site import Site
from idi.parts.targets.local.strays import Marked, living, marked


@dataclass(frozen=True, slots=True)
class Found:
    """Seats with their living processes (module, sidecar), and processes that nobody accounts for."""

    seats: list[tuple[Seat, Process | None, Process | None]]
    strays: list[Marked]


def look(site: Site, parts: Records) -> Found:
    """Everything that is there. Raises `PartError` naming a damaged record, before anything is touched."""
    seats: list[Seat] = []
    for name, document in site.records.read().items():
        try:
            seats.append(decode(document))
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(site.records.path(name), error) from error
    settled = {(name, str(document.get("role"))) for name, document in parts.read().items()}
    processes = marked(site.machine, site.platform_hash)
    found = []
    for seat in seats:
        module, sidecar = (
            living(site.machine, site.platform_hash, seat.instance, role, occupant, processes)
            for role, occupant in (("module", seat.module), ("sidecar", seat.sidecar))
        )
        for role, process, occupant in (("module", module, seat.module), ("sidecar", sidecar, seat.sidecar)):
            if process is not None:
                settled.add((seat.instance, role))
                occupant.pid, occupant.started, occupant.pending = process.pid, process.started, False
        found.append((seat, module, sidecar))
    return Found(found, [one for one in processes if (one.name, one.role) not in settled])
