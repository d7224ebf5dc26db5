"""`idi secrets`: set, list and rotate what modules may know and nobody else.

A value never stands among the arguments, which every user of a machine can list and a shell writes down: it is
typed without echo, or comes from standard input or from a file.
"""

from __future__ import annotations

import base64
import sys

from idi.cli.change import apply
from idi.cli.commands import Command
from idi.cli.failure import DONE, usage
from idi.cli.invocation import Invocation
from idi.cli.parser import add_globals
from idi.cli.terminal.words import aligned

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import SecretRequest, SecretsView

MOST_BYTES = 64 * 1024


def arguments(parser: ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    put = what.add_parser("set", help="set a value: typed without echo, or from standard input or a file")
    put.add_argument("path", metavar="PATH", help="as declared, such as jede/database")
    put.add_argument("--from-file", metavar="FILE", help="every byte of this file")
    shown = what.add_parser("list", help="paths, versions, who uses them, what is missing; no values")
    rotate = what.add_parser("rotate", help="a new value, for every module that uses it")
    rotate.add_argument("path", metavar="PATH")
    value = rotate.add_mutually_exclusive_group()
    value.add_argument("--ask", action="store_true", help="as for set (default: a random one, 32 bytes)")
    value.add_argument("--from-file", metavar="FILE", help="every byte of this file")
    for each in (put, shown, rotate):
        add_globals(each)


def run(invocation: Invocation) -> int:
    return {"set": put, "list": show, "rotate": rotate}[invocation.options.what](invocation)


def put(invocation: Invocation) -> int:
    path = invocation.options.path
    request: SecretRequest = {"action": "secret", "path": path, "value": value_of(invocation)}
    return apply(invocation, request, f"Setting {path}")


def rotate(invocation: Invocation) -> int:
    options = invocation.options
    request: SecretRequest = {"action": "secret", "path": options.path}
    if options.ask or options.from_file:
        request["value"] = value_of(invocation)
    return apply(invocation, request, f"Rotating {options.path}")


def value_of(invocation: Invocation) -> str:
    """In base64, from where it was said to be."""
    file = invocation.options.from_file
    if file:
        value = from_file(file)
    elif sys.stdin.isatty():
        value = typed(invocation.options.path)
    else:
        value = sys.stdin.buffer.read(MOST_BYTES + 3)
        value = value.removesuffix(b"\n").removesuffix(b"\r")  # what `echo` and an editor put there
    if not value:
        raise usage("The value is empty: nothing was set.")
    if len(value) > MOST_BYTES:
        raise usage("The value is larger than 64 KiB, which no secret is.")
    return base64.b64encode(value).decode()


def typed(path: str) -> bytes:
    """Twice, since nobody sees what they type."""
    from getpass import getpass

    first = getpass(f"Value of {path} (not shown): ")
    if first and getpass("The same again: ") != first:
        raise usage("The two were not the same: nothing was set.")
    return first.encode()


def from_file(file: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}.") from None


def show(invocation: Invocation) -> int:
    screen = invocation.screen
    view: SecretsView = invocation.client().ask("GET", "/v1/secrets")
    if invocation.json:
        screen.document(view)
        return DONE
    if not view["secrets"]:
        screen.out("No secret is set, and no module declares one.")
        return DONE
    rows = [("PATH", "VERSION", "SET", "USED BY")]
    for one in view["secrets"]:
        since = (one["since"] or "")[:16].replace("T", " ")
        rows.append(
            (one["path"], str(one["version"] or "missing"), since or "-", ", ".join(one["modules"]) or "-")
        )
    for row, text in zip(rows, aligned(rows), strict=True):
        style = "dim" if row is rows[0] else "yellow" if row[1] == "missing" else ""
        screen.out([(text, style)])
    if missing := [one["path"] for one in view["secrets"] if one["missing"]]:
        screen.out()
        screen.tell(f"{invocation.command_line(f'secrets set {missing[0]}')} sets what is missing.")
    return DONE


COMMANDS = {
    "secrets": Command(
        run,
        arguments,
        examples=(
            "idi secrets set jede/database",
            "idi secrets set jede/key --from-file key.pem",
            "idi secrets list",
            "idi secrets rotate jede/database",
        ),
        about="What modules may know and nobody else: kept encrypted in OpenBao, given to the modules that declare\n"
        "it when they start. A new value rolls those modules, one instance at a time, so that no request fails.",
    )
}
