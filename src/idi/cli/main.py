"""The entry: which command, its options, and one place where every way to end becomes an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from types import SimpleNamespace

from idi.api.errors import IdiError
from idi.cli.failure import DONE, INTERRUPTED, Ended, Failure, from_error, usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import Namespace

WITH_VALUE = ("--env", "--file", "--role")
FLAGS = ("--json", "--debug")
DEFAULTS: Mapping[str, object] = {
    "env": "dev",
    "file": "platform.yaml",
    "role": "",
    "json": False,
    "debug": False,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code and lets no exception out."""
    given = sys.argv[1:] if arguments is None else arguments
    ours = (
        given[: given.index("--")] if "--" in given else given
    )  # what follows is somebody else's command line
    debug, as_json = "--debug" in ours, "--json" in ours
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = run(given)
        sys.stdout.flush()
        return code
    except Ended as ended:
        return ended.code
    except BrokenPipeError:
        # The reader has enough (`| head`). Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Failure as failure:
        if debug and failure.__cause__ is not None:
            traceback()
        return report(failure, as_json=as_json)
    except IdiError as error:
        if debug:
            traceback()
        return report(from_error(error), as_json=as_json)
    except Exception as error:  # noqa: BLE001
        if debug:
            traceback()
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            what = f"{error.strerror}{f': {error.filename}' if error.filename else ''}."
            return report(Failure(what, "", "--debug shows where."), as_json=as_json)
        fault = Failure("This is a fault of idi's own.", what, "--debug shows where; please report it.")
        return report(fault, as_json=as_json)


def run(given: list[str]) -> int:
    before, rest = split(given)
    if not rest or rest[0] in ("-h", "--help", "help"):
        if len(rest) > 1 and rest[0] == "help":
            return run([*before, rest[1], "--help"])
        from idi.cli.overview import overview

        sys.stdout.write(overview())
        return DONE if rest else 2
    if rest[0] in ("-V", "--version"):
        from idi import __version__

        sys.stdout.write(f"idi {__version__}\n")
        return DONE
    name = rest[0]
    if rest[:3] == ["completion", "words", "--"]:  # what follows is another command line, not options of ours
        from idi.cli.completion import answer

        return answer(rest[3:])
    if name.startswith("-"):
        from idi.cli.terminal.words import did_you_mean

        every = [*WITH_VALUE, *FLAGS, "--help", "--version"]
        raise usage(f"There is no option '{name}' before a command.{did_you_mean(name, every)}", "idi --help")
    from idi.cli.commands import command
    from idi.cli.invocation import Invocation

    found = command(name)
    options = quick(found.plain, [*before, *rest[1:]]) or parse(name, rest[1:], before)
    invocation = Invocation(name, options)
    from idi.api.client import NotRunning

    try:
        return found.run(invocation)
    except NotRunning as error:
        from idi.cli.left import not_running

        raise not_running(invocation, error) from error


def quick(plain: Mapping[str, object] | None, words: list[str]) -> SimpleNamespace | None:
    """The options of a command that was given global ones and no other; else None, and argparse reads them.

    `idi status` is asked in loops and by prompts, and argparse costs as much as an answer of control.
    """
    if plain is None:
        return None
    found: dict[str, object] = {**DEFAULTS, **plain}
    at = 0
    while at < len(words):
        if words[at] in FLAGS:
            found[words[at][2:]] = True
        elif words[at] in WITH_VALUE and at + 1 < len(words):
            found[words[at][2:]] = words[at + 1]
            at += 1
        else:
            return None
        at += 1
    from idi.cli.terminal.words import is_environment

    if not is_environment(str(found["env"])) or found["role"]:
        return None
    return SimpleNamespace(**found)


def parse(name: str, rest: list[str], before: list[str]) -> Namespace:
    """Options of one command; what stands before the command counts, what stands after it wins."""
    from argparse import Namespace

    from idi.cli.commands import command
    from idi.cli.parser import Parser, add_globals, parser_for

    options = Namespace(**DEFAULTS)
    if before:
        first = Parser(prog="idi")
        add_globals(first)
        options = first.parse_args(before, options)
    found = command(name)
    at = rest.index("--") if found.after and "--" in rest else len(rest)
    try:
        options = parser_for(name, found).parse_args(rest[:at], options)
        if at < len(rest):  # argparse would take further ones out of it
            setattr(options, found.after, rest[at + 1 :])
        return options
    except SystemExit as done:  # --help was printed
        raise Ended(DONE if not done.code else 2) from None


def split(given: list[str]) -> tuple[list[str], list[str]]:
    """The options before the command, and the rest from the command on."""
    at = 0
    while at < len(given):
        if given[at] in WITH_VALUE:
            at += 2
        elif given[at] in FLAGS or given[at].partition("=")[0] in WITH_VALUE:
            at += 1
        else:
            break
    return given[:at], given[at:]


def report(failure: Failure, *, as_json: bool) -> int:
    """Say it on stderr: one problem document with --json, else what happened, why, the way out."""
    from idi.cli.terminal.screen import Screen

    screen = Screen(as_json=as_json)
    try:
        if as_json:
            import json

            print(json.dumps(failure.problem(), ensure_ascii=False), file=sys.stderr)
            return failure.code
        for mistake in failure.mistakes:
            screen.err(mistake)
        screen.warn([(failure.what, "alarm" if not failure.mistakes else "bold")])
        if failure.why:
            screen.warn(failure.why)
        for line in failure.lines:
            screen.err([("  | ", "dim"), (line, "")])
        if failure.way_out:
            for line in failure.way_out.split("\n"):
                screen.warn(line)
    except OSError:
        pass  # nobody reads stderr either
    return failure.code


def traceback() -> None:
    from traceback import print_exc

    print_exc()
