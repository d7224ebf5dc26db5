"""`idi env`: the environment that a module gets from the platform, for a shell, a debugger's file, or a look."""

from __future__ import annotations

import re
from urllib.parse import quote

from idi.cli.commands import Command
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation
from idi.cli.names import check_modules
from idi.cli.remote import is_remote
from idi.cli.terminal.words import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import EnvironmentView, VariableView

BARE = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
"""What a shell takes as it stands."""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("module", metavar="MODULE")
    parser.add_argument(
        "--plain", action="store_true", help="NAME=VALUE as it is, as files of debuggers have it"
    )
    parser.add_argument("--reveal", action="store_true", help="secrets too; that is noted in the audit log")


def run(invocation: Invocation) -> int:
    options, screen = invocation.options, invocation.screen
    check_modules(invocation, [options.module])
    target = f"/v1/environment?module={quote(options.module)}" + ("&reveal=1" if options.reveal else "")
    view: EnvironmentView = invocation.client(30.0).ask("GET", target)
    if invocation.json:
        screen.document(view)
        return DONE
    for one in view["variables"]:
        if (line := line_of(one, as_it_is=options.plain)) is not None:
            screen.out(line)
    for remark in remarks(view, as_it_is=options.plain, remote=is_remote(invocation)):
        screen.warn(remark)
    return DONE


def line_of(one: VariableView, *, as_it_is: bool) -> str | None:
    """None where there is no value, or none that such a line can hold."""
    name, value = one["name"], one["value"]
    if value is None:
        return None
    if as_it_is:
        return None if "\n" in value else f"{name}={value}"
    return f"export {name}={quoted(value)}"


def quoted(value: str) -> str:
    if BARE.fullmatch(value):
        return value
    return "'" + value.replace("'", "'\"'\"'") + "'"


def remarks(view: EnvironmentView, *, as_it_is: bool, remote: bool = False) -> list[str]:
    """Whose numbers these are, and what is missing: on stderr, so that `eval` gets variables alone."""
    module, variables = view["module"], view["variables"]
    found = []
    if view["instance"] and not remote:
        found.append(f"As {view['instance']} has it; idi run {module} -- CMD gives a port of your own.")
    missing = [one["name"] for one in variables if one["value"] is None and not one["secret"]]
    if missing and remote:
        found.append(
            f"Each pod has its own {', '.join(missing)}; all else is the same in every pod of {module}."
        )
    elif missing:
        found.append(f"No instance of {module} lives, and only one has {', '.join(missing)}.")
    if hidden := [one["name"] for one in variables if one["value"] is None and one["secret"]]:
        many = "1 secret is" if len(hidden) == 1 else f"{len(hidden)} secrets are"
        stays = "it stays" if len(hidden) == 1 else "they stay"
        shows = f"{stays} in the cluster" if remote else "--reveal shows them"
        found.append(f"{many} not shown ({', '.join(hidden)}); {shows}.")
    if as_it_is:
        long = [one["name"] for one in variables if one["value"] and "\n" in one["value"]]
        if long:
            found.append(f"{', '.join(long)} left out: more than one line; without --plain it is quoted.")
    return [plain(text) for text in found]


COMMANDS = {
    "env": Command(
        run,
        arguments,
        examples=(
            'eval "$(idi env jede)"',
            "idi env jede --plain > .env      # for an editor's debugger",
            "idi env jede --reveal --json | jq .variables",
        ),
        about="Print the environment that a module gets from the platform, as lines for a shell. Ports are those of a\n"
        "living instance. Values of secrets are not shown unless asked for, and of an environment on a cluster not\n"
        "at all.",
    )
}
