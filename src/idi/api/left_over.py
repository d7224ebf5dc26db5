"""What a platform left running: processes that carry its marker, found without control."""

from __future__ import annotations

import os

from idi.api.place import place


def left_over(file: str | os.PathLike[str], environment: str) -> list[tuple[str, int]]:
    """Names and pids of the living session leaders that this platform's control started."""
    from idi.parts.clients.machine import this_machine
    from idi.parts.errors import PartError
    from idi.parts.targets.local.strays import marked

    hash8 = place(file, environment)[1]
    try:
        return [(f"{one.name} ({one.role})", one.seen.pid) for one in marked(this_machine(), hash8)]
    except PartError:  # a system whose processes cannot be listed: control will find them
        return []
