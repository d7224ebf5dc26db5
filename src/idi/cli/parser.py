"""Parsers of one command each, in the house's manners; argparse does the work."""

from __future__ import annotations

import argparse
import re

from idi.api.roles import ROLES
from idi.cli.commands import SUMMARIES, Command
from idi.cli.failure import usage
from idi.cli.terminal.screen import size
from idi.cli.terminal.words import did_you_mean, is_environment, wrap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


def formatter(prog: str) -> argparse.HelpFormatter:
    """At the terminal's width; argparse's own way to find it imports every archive format."""
    return argparse.RawDescriptionHelpFormatter(prog, width=help_width())


def help_width() -> int:
    return min(size()[0] or 100, 100) - 2


class Parser(argparse.ArgumentParser):
    """Errors are raised, never printed; options are never abbreviated, so that adding one breaks nobody."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", formatter)
        super().__init__(allow_abbrev=False, add_help=False, **options)
        self._optionals.title = "Options"
        self._positionals.title = "Arguments"
        self.add_argument("-h", "--help", action="help", help="this text")

    def error(self, message: str) -> NoReturn:
        raise usage(sentence(message) + self._nearest(message), f"{self.prog} --help shows what it takes.")

    def _nearest(self, message: str) -> str:
        """A question at the end where an option or a choice is nearly right."""
        unknown = re.search(r"unrecognized arguments: (--?[\w-]+)", message)
        if unknown:
            return did_you_mean(unknown[1], [o for action in self._actions for o in action.option_strings])
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice:
            return did_you_mean(choice[1], re.findall(r"'?([\w-]+)'?", choice[2]))
        return ""


class Intermixed(Parser):
    """Of a subcommand whose options may stand between its arguments: argparse takes all arguments at the first one,
    and where further ones come after an option it does not understand them."""

    _mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            found, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
        if unknown:  # here the nearest option is known
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def sentence(message: str) -> str:
    """argparse's message as a sentence of ours."""
    message = re.sub(r"^argument (?:[A-Z]+: )?", "", message)
    message = re.sub(r"^the following arguments are required: ", "missing: ", message)
    message = re.sub(r"^unrecognized arguments: ", "not understood: ", message)
    return message[:1].upper() + message[1:] + ("" if message.endswith((".", "?", "!")) else ".")


def environment(value: str) -> str:
    if not is_environment(value):
        raise argparse.ArgumentTypeError(f"'{value}' is no name of an environment, such as dev or production")
    return value


def count(value: str) -> int:
    if not value.isdigit() or not 0 < int(value) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"'{value}' is not a number from 1 on")
    return int(value)


def whole(value: str) -> int:
    if not value.isdecimal() or len(value) > 15:
        raise argparse.ArgumentTypeError(f"'{value}' is no whole number")
    return int(value)


def port(value: str) -> int:
    if not value.isdigit() or not 0 < int(value) < 65536:
        raise argparse.ArgumentTypeError(f"'{value}' is no port (1 to 65535)")
    return int(value)


def seconds(value: str) -> float:
    """`300ms`, `90s`, `5m`, `2h`, `1d`, as in the declaration."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", value)
    if not found:
        raise argparse.ArgumentTypeError(f"'{value}' is no duration such as 30s, 5m or 2h")
    return float(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2]]


def add_globals(parser: argparse.ArgumentParser) -> None:
    """What every command takes, before the command or after it."""
    every = parser.add_argument_group("Every command takes")
    suppressed: Any = argparse.SUPPRESS
    every.add_argument(
        "--env", type=environment, default=suppressed, metavar="NAME", help="environment (default: dev)"
    )
    every.add_argument(
        "--file", default=suppressed, metavar="FILE", help="the declaration (default: platform.yaml)"
    )
    every.add_argument(
        "--role",
        choices=ROLES,
        default=suppressed,
        metavar="NAME",
        help=f"on a cluster: act in this role, of {', '.join(ROLES)} (default: the highest that you have)",
    )
    every.add_argument(
        "--json", action="store_true", default=suppressed, help="JSON on stdout, nothing else there"
    )
    every.add_argument("--debug", action="store_true", default=suppressed, help="show a fault's traceback")


def parser_for(name: str, command: Command) -> Parser:
    examples = "\n".join(f"  {line}" for line in command.examples)
    title = "Example" if len(command.examples) == 1 else "Examples"
    about = command.about or f"{SUMMARIES[name][:1].upper()}{SUMMARIES[name][1:]}."
    parser = Parser(
        prog=f"idi {name}",
        description="\n".join(wrap(" ".join(about.split()), help_width(), 30)),
        epilog=f"{title}:\n{examples}",
    )
    if command.arguments:
        command.arguments(parser)
    usage_line = " ".join(parser.format_usage().removeprefix("usage: ").replace("[-h] ", "").split())
    parser.usage = usage_line.removesuffix("[-h]").strip()  # the same for all is said below, once
    add_globals(parser)
    return parser
