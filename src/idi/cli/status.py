"""`idi status`: the table once, or in place with --watch. The fastest command there is, so it stays lean."""

from __future__ import annotations

from idi.cli.commands import Command
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation
from idi.cli.once import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser


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


COMMANDS = {
    "status": Command(
        run,
        arguments,
        examples=("idi status", "idi status --watch", "idi status --json | jq '.modules[].state'"),
        plain={"watch": False},
        about="What runs, and how it does. Exit code 3 when the platform is not running.",
    )
}
