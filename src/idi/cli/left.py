"""When nobody answers: whether a control that is gone left processes running, and what to say."""

from __future__ import annotations

import os

from idi.api.errors import IdiError
from idi.api.place import place
from idi.cli.failure import NOT_RUNNING, Failure
from idi.cli.invocation import Invocation, no_declaration


def left_over(invocation: Invocation) -> bool:
    """The records of what was started are looked at first: where there is none, nothing is left."""
    return recorded(invocation) and bool(count(invocation))


def count(invocation: Invocation) -> int:
    from idi.api.left_over import left_over as found

    return len(found(invocation.file, invocation.env))


def recorded(invocation: Invocation) -> bool:
    state = place(invocation.file, invocation.env)[2]
    for folder in ("seats", "parts"):
        try:
            if any(name.endswith(".json") for name in os.listdir(os.path.join(state, folder))):
                return True
        except OSError:
            continue
    return False


def not_running(invocation: Invocation, error: IdiError) -> Failure:
    """Nothing runs, or what control started goes on without it."""
    why = "" if error.message == "Nobody listens." else error.message
    up, down = invocation.command_line("up"), invocation.command_line("down")
    if left_over(invocation):
        return Failure(
            f"Control of {invocation.where} is not running; what it started goes on.",
            why,
            f"{up} takes it over, {down} stops it.",
            code=NOT_RUNNING,
        )
    if not os.path.exists(invocation.file):
        return no_declaration(invocation.file, NOT_RUNNING)
    return Failure(f"{invocation.where} is not running.", why, f"{up} starts it.", code=NOT_RUNNING)


def never_ran(invocation: Invocation, what: str, way_out: str) -> Failure:
    """Where a file is asked for that only a platform that ran has written."""
    if not os.path.exists(invocation.file):
        return no_declaration(invocation.file, NOT_RUNNING)
    return Failure(what, way_out=way_out, code=NOT_RUNNING)
