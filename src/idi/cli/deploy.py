"""`idi deploy`: push modules as they are declared now onto the platform that runs."""

from __future__ import annotations

from idi.cli.change import apply
from idi.cli.commands import Command
from idi.cli.failure import usage
from idi.cli.invocation import Invocation
from idi.cli.validate import doable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import DeployRequest


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="only these (default: all)")


def run(invocation: Invocation) -> int:
    from idi.cli.names import unknown

    text = invocation.text()
    declared = doable(invocation, text).platform
    modules = list(dict.fromkeys(invocation.options.modules))
    for name in modules:
        if name not in declared.modules:
            raise unknown(name, [*declared.modules])
    if not declared.modules:
        raise usage(f"{invocation.file} declares no module.")
    request: DeployRequest = {"action": "deploy", "text": text, "file": invocation.file, "modules": modules}
    return apply(invocation, request, "The push", reasons=True)


COMMANDS = {
    "deploy": Command(
        run,
        arguments,
        examples=("idi deploy", "idi deploy jede cam --env staging"),
        about="Push modules as they are declared now onto the platform that runs, and wait until they are healthy.\n"
        "The old instances serve until new ones are ready; where those do not get ready the push stops, and the old\n"
        "ones go on. Modules that are not named stay as they run, whatever the file says of them.",
    )
}
