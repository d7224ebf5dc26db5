"""`idi status`: the table once, or in place with --watch. The fastest command there is, so it stays lean."""

from __future__ import annotations

import time

from idi.cli.commands import Command
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation
from idi.cli.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import StatusView


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="keep showing it, until Ctrl-C")


def run(invocation: Invocation) -> int:
    if invocation.options.watch:
        from idi.cli.watch import watch

        return watch(invocation)
    view = invocation.client().status(figures=True)
    if invocation.json:
        invocation.screen.document(view)
        return DONE
    show(invocation, view)
    return DONE


def show(invocation: Invocation, view: StatusView) -> None:
    for line in table(view, time.time(), invocation.screen.width, hint(invocation, view)):
        invocation.screen.out(line)


def hint(invocation: Invocation, view: StatusView, end: str = "down") -> str:
    """What a person may want next; without `end`, Ctrl-C is the way to stop."""
    first = view["modules"][0]["name"] if view["modules"] else "MODULE"
    ill = next((m["name"] for m in view["modules"] if m["state"] in ("failed", "unready")), "")
    said = f"logs {ill}" if ill else "logs"
    rest = [invocation.command_line(words) for words in (f"call {first} /", said, end) if words]
    return "   ".join([*rest, *([] if end else ["Ctrl-C stops all"])])


COMMANDS = {
    "status": Command(
        run,
        arguments,
        examples=("idi status", "idi status --watch", "idi status --json | jq '.modules[].state'"),
        plain={"watch": False},
        about="What runs, and how it does. Exit code 3 when the platform is not running.",
    )
}
