"""`idi scale` and `idi restart`: changes to what runs, recorded, shown step by step."""

from __future__ import annotations

import re
from contextlib import nullcontext

from idi.cli.commands import Command
from idi.cli.failure import DONE, INTERRUPTED, usage
from idi.cli.invocation import Invocation
from idi.cli.names import check_modules
from idi.cli.terminal.live import Live
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.pump import follow
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.words import took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import ChangeRequest

MOST = 100


def scale_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("counts", nargs="+", metavar="MODULE=N", help="a module and its number of instances")


def restart_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("modules", nargs="+", metavar="MODULE")


def scale(invocation: Invocation) -> int:
    wanted: dict[str, int] = {}
    for word in invocation.options.counts:
        found = re.fullmatch(r"([a-z][-a-z0-9]*)=(\d{1,6})", word)
        if not found:
            raise usage(f"'{word}' is not MODULE=N.", "Write for example: idi scale jede=3")
        if found[1] in wanted:
            raise usage(f"{found[1]} is named twice.")
        wanted[found[1]] = int(found[2])
        if wanted[found[1]] > MOST:
            raise usage(f"{word} is out of range.", f"Write a number from 0 to {MOST}.")
    check_modules(invocation, list(wanted))
    return apply(invocation, {"action": "scale", "modules": wanted}, "Scaling")


def restart(invocation: Invocation) -> int:
    modules = list(dict.fromkeys(invocation.options.modules))
    check_modules(invocation, modules)
    return apply(invocation, {"action": "restart", "modules": modules}, "Restarting")


def apply(invocation: Invocation, request: ChangeRequest, what: str, *, reasons: bool = False) -> int:
    """Ask for a change of what runs, show its steps, and say how it ended."""
    screen = invocation.screen
    with (
        Signals() as signals,
        Live(screen, signals) if screen.live else nullcontext() as live,
    ):
        follower = Follower(screen, live, reasons=reasons)
        with invocation.client().change(request) as stream:
            if not follow(stream, follower, signals):
                follower.say([("The change goes on by itself; idi status shows it.", "")])
                return INTERRUPTED
        if live:
            live.clear()
    failure = follower.failure(what)
    if failure:
        raise failure
    if follower.changed:
        screen.out([("Done", "green"), (f" in {took(follower.seconds)}.", "")])
    return DONE


COMMANDS = {
    "scale": Command(
        scale,
        scale_arguments,
        examples=("idi scale jede=3", "idi scale jede=3 cam=2"),
        about="Another number of instances. It is recorded and stays through `idi up`; `idi plan` names it.",
    ),
    "restart": Command(
        restart,
        restart_arguments,
        examples=("idi restart jede", "idi restart jede cam"),
        about="New instances for old: each is ready before an old one goes, so that no request fails. A module\n"
        "with storage is the exception: its old instance goes first, never two writers.",
    ),
}
