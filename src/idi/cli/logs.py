"""`idi logs`: what modules write, merged by time. On a laptop it reads files, so it works when control does not live;
for an environment on a cluster it asks control there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from idi.cli.commands import Command
from idi.cli.failure import DONE, usage
from idi.cli.invocation import Invocation
from idi.cli.left import never_ran
from idi.cli.names import unknown
from idi.cli.parser import count, seconds
from idi.cli.remote import is_remote
from idi.cli.terminal.printer import Printer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.offline import LogLine

TAIL = 10


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "modules",
        nargs="*",
        metavar="MODULE",
        help="a module (jede), an instance (jede-1), a sidecar (jede-1.sidecar), control, gateway or openbao; "
        "default: every module",
    )
    parser.add_argument(
        "-f",
        "--follow",
        action="store_true",
        help=f"the last {TAIL} lines of each module (or from --since, or --lines), then what comes, until Ctrl-C",
    )
    parser.add_argument("--since", type=seconds, metavar="TIME", help="not older than this, such as 5m")
    parser.add_argument("--grep", metavar="RE", help="only lines in which this regular expression is found")
    parser.add_argument("-n", "--lines", type=count, metavar="N", help="only the last N lines")
    parser.add_argument("-t", "--time", action="store_true", help="begin lines with when they were written")


def run(invocation: Invocation) -> int:
    grep = pattern(invocation.options.grep)
    if is_remote(invocation):
        from idi.cli.logs_cluster import show

        return show(invocation, grep, TAIL)
    return show_files(invocation, grep)


def show_files(invocation: Invocation, grep: re.Pattern[str] | None) -> int:
    from idi.api.offline import log_reader, log_sources

    options = invocation.options
    sources = log_sources(invocation.file, invocation.env)
    if not sources:
        raise never_ran(
            invocation,
            f"Nothing has run for {invocation.where} yet, so there are no logs.",
            f"{invocation.command_line('up')} starts it.",
        )
    known = sorted({*sources, *(module for module in sources.values() if module)})
    for name in options.modules:
        if name not in known:
            raise unknown(name, known)
    reader = log_reader(invocation.file, invocation.env, options.modules, grep)
    printer = Printer(invocation.screen, sources, show_time=options.time)
    since = time.time() - options.since if options.since is not None else 0.0
    lines: Iterable[LogLine]
    if options.lines:
        lines = reader.last(options.lines, since)
    elif options.follow and options.since is None:
        lines = reader.last(TAIL, each=True)
    else:
        lines = reader.read(since)
    for line in lines:
        printer.show(line)
    printer.flush()
    if options.follow:
        import asyncio

        async def follow() -> None:
            async for line in reader.follow():
                printer.show(line)
                printer.flush()

        asyncio.run(follow())
    return DONE


def pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise usage(f"--grep '{text}' is no regular expression: {error}.") from error


COMMANDS = {
    "logs": Command(
        run,
        arguments,
        examples=(
            "idi logs",
            "idi logs jede --follow",
            "idi logs --since 5m --grep 'error|timeout'",
            "idi logs control openbao gateway",
        ),
        about="What the modules write, merged by time, each line with its instance. Works when control does\n"
        "not live. About 16 MiB are kept for each process: all of it is shown where nothing says less.\n"
        "Of an environment on a cluster control there reads what Kubernetes keeps of the pods that are\n"
        "there, at most 10000 lines of each container; jede.sidecar is every sidecar of jede.",
    )
}
