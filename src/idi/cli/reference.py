"""docs/reference/commands.md, from the parsers themselves: `python -m idi.cli.reference` writes it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from idi.cli.commands import GROUPS, SUMMARIES, command
from idi.cli.overview import GLOBALS
from idi.cli.parser import Parser, parser_for

HEAD = """\
# Commands

Made from the command line's own parsers by `python -m idi.cli.reference > docs/reference/commands.md`.

Every command takes these options, before the command or after it:

| option | |
|---|---|
{globals}

With `--json` stdout carries one JSON document, or JSON lines where a command tells what happens (`up`, `down`,
`deploy`, `scale`, `restart`, `config set`, `status --watch`, `logs`, `audit list`), and nothing else. An error is then
one problem document (RFC 9457, with the exit code as `exit`) on stderr. Colour comes only on a terminal, and not with
`NO_COLOR`.

| exit code | |
|---|---|
| 0 | done |
| 1 | the operation failed |
| 2 | wrong usage, or an invalid declaration (`FILE:LINE:COL: what is wrong`) |
| 3 | not running, or not reachable |
| 130 | interrupted (Ctrl-C, SIGTERM, a closed terminal) |
"""


def reference() -> str:
    rows = "\n".join(f"| `{name}` | {about} |" for name, about in GLOBALS)
    sections = [HEAD.format(globals=rows)]
    for title, commands in GROUPS:
        sections.append(f"## {title}\n")
        for name, _, _ in commands:
            sections.append("\n".join(section(name)))
    return "\n".join(sections)


def section(name: str) -> Iterator[str]:
    found = command(name)
    parser = parser_for(name, found)
    yield f"### idi {name}\n"
    about = found.about or f"{SUMMARIES[name][:1].upper()}{SUMMARIES[name][1:]}."
    yield f"{about}\n"
    yield f"```\n{parser.usage}\n```\n"
    yield from table(parser)
    for nested, about, inner in subcommands(parser):
        yield f"`idi {name} {nested}`: {about}\n"
        yield from table(inner)
    yield "```sh"
    yield from found.examples
    yield "```\n"


def table(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The arguments and options of its own."""
    rows = []
    for action in parser._actions:
        own = not isinstance(action, argparse._SubParsersAction | argparse._HelpAction)
        shown = action.help is not argparse.SUPPRESS
        if own and shown and not (action.option_strings and action.default is argparse.SUPPRESS):
            rows.append(f"| `{spelled(action)}` | {action.help or ''} |")
    if rows:
        yield "| | |\n|---|---|"
        yield from rows
        yield ""


def spelled(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    value = str(action.metavar or "") if action.nargs != 0 else ""
    if not names:
        return f"[{value}]" if action.nargs in ("?", "*") else value
    return f"{names} {value}".strip().replace("|", "\\|")


def subcommands(parser: Parser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            about = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                yield name, about.get(name, ""), inner


if __name__ == "__main__":
    sys.stdout.write(reference())
