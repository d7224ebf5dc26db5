"""`idi render`: documents that follow from the declaration, for other people's tools."""

from __future__ import annotations

import json

from idi.cli.commands import Command
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation
from idi.cli.names import unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser


def arguments(parser: ArgumentParser) -> None:
    from idi.cli.parser import add_globals

    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    asyncapi = what.add_parser("asyncapi", help="events as an AsyncAPI 3.0 document")
    asyncapi.add_argument("module", nargs="?", metavar="MODULE", help="one module's own view (default: all)")
    add_globals(asyncapi)


def run(invocation: Invocation) -> int:
    from idi.cli.validate import checked
    from idi.plan.asyncapi import asyncapi

    platform = checked(invocation, invocation.text()).platform
    name = invocation.options.module
    modules = {str(known): module for known, module in platform.modules.items()}
    if name and name not in modules:
        raise unknown(name, list(modules))
    print(json.dumps(asyncapi(platform, modules.get(name)), indent=2, ensure_ascii=False))
    return DONE


COMMANDS = {
    "render": Command(
        run,
        arguments,
        examples=("idi render asyncapi > asyncapi.json", "idi render asyncapi jede"),
        about="Documents that follow from the declaration, for other people's tools. Nothing has to run.",
    )
}
