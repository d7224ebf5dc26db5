"""`idi keys`: which keys the platform stands on, and another one in the place of each, while everything goes on."""

from __future__ import annotations

from idi.cli.change import apply
from idi.cli.commands import Command
from idi.cli.failure import DONE, usage
from idi.cli.invocation import Invocation
from idi.cli.parser import add_globals
from idi.cli.terminal.words import aligned, did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import KeysRequest, KeysView

NAMES = ("seal", "recovery", "control", "certificates", "tokens", "bus")


def arguments(parser: ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    shown = what.add_parser("list", help="which keys there are, since when, when they are due; no key")
    rotate = what.add_parser("rotate", help="another key in the place of each that is named")
    rotate.add_argument("keys", nargs="+", metavar="KEY", help=f"{', '.join(NAMES)}, or all")
    rotate.add_argument(
        "--now", action="store_true", help="for tokens, after a leak: every token that is out ends"
    )
    for each in (shown, rotate):
        add_globals(each)


def run(invocation: Invocation) -> int:
    return {"list": show, "rotate": rotate}[invocation.options.what](invocation)


def rotate(invocation: Invocation) -> int:
    options = invocation.options
    for key in options.keys:
        if key not in (*NAMES, "all"):
            raise usage(
                f"No key is called '{key}'.{did_you_mean(key, NAMES)}",
                f"There are {', '.join(NAMES)}, or all.",
            )
    keys = list(dict.fromkeys(options.keys))
    if options.now and keys != ["tokens"]:
        raise usage("Only tokens can be replaced at once.", "Write: idi keys rotate tokens --now")
    request: KeysRequest = {"action": "keys", "keys": keys}
    if options.now:
        request["now"] = True
    return apply(invocation, request, f"Rotating {', '.join(keys)}")


def show(invocation: Invocation) -> int:
    screen = invocation.screen
    view: KeysView = invocation.client().ask("GET", "/v1/keys")
    if invocation.json:
        screen.document(view)
        return DONE
    rows = [("KEY", "SINCE", "DUE", "PROTECTS")]
    for one in view["keys"]:
        due = (one["due"] or "")[:10] or "-"
        rows.append(
            (
                one["name"],
                (one["since"] or "")[:16].replace("T", " ") or "unknown",
                f"{due}, by itself" if one["due_by_itself"] and one["due"] else due,
                one["protects"],
            )
        )
    for row, text in zip(rows, aligned(rows), strict=True):
        style = "dim" if row is rows[0] else ""
        screen.out([(text, style)])
    for one in view["keys"]:
        for file in one["kept"]:
            screen.tell(f"A former {one['name']} key is kept as {file}: backups made before it went need it.")
    return DONE


COMMANDS = {
    "keys": Command(
        run,
        arguments,
        examples=(
            "idi keys list",
            "idi keys rotate certificates",
            "idi keys rotate seal tokens",
            "idi keys rotate tokens --now",
        ),
        about="The keys that the platform stands on. Another one takes the place of each while everything goes on: no\n"
        "request fails, no event is lost. What was interrupted is completed by the next run.",
    )
}
