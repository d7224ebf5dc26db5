"""`idi logs`: what modules write, merged by time. On a laptop it reads files, so it works when control does not live;
for an environment on a cluster it asks control there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping

from idi.cli.commands import Command
from idi.cli.failure import DONE, usage
from idi.cli.invocation import Invocation
from idi.cli.left import never_ran
from idi.cli.names import unknown
from idi.cli.parser import count, seconds
from idi.cli.remote import is_remote
from idi.cli.screen import Line, Screen, painted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.offline import LogLine
    from idi.cli.logs_cluster import Shown

TAIL = 10
PALETTE = ("cyan", "green", "yellow", "magenta", "blue", "red")
COLOURS = re.compile(r"\x1b\[[\d;:]*m")
CONTROLS = re.compile(r"\x1b\[[\d;:]*m|\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b.?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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

        return show(invocation, grep)
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


class Printer:
    """Lines with their source before them: aligned, and in a colour of the module's own on a terminal."""

    def __init__(self, screen: Screen, sources: Mapping[str, str], *, show_time: bool) -> None:
        self._screen = screen
        self._show_time = show_time
        self._width = max((len(name) for name, module in sources.items() if module), default=0)
        families = sorted({module or name for name, module in sources.items()})
        self._colours = {name: PALETTE[at % len(PALETTE)] for at, name in enumerate(families)}

    def show(self, line: LogLine | Shown) -> None:
        if self._screen.as_json:
            self._screen.document(
                {"time": rfc3339(line.time), "source": line.source, "module": line.module, "line": line.line},
                flush=False,
            )
            return
        print(self.text(line))

    def text(self, line: LogLine | Shown) -> str:
        family = line.module or line.source.partition(".")[0].rpartition("-")[0] or line.source
        colour = self._colours.setdefault(family, PALETTE[len(self._colours) % len(PALETTE)])
        self._width = max(self._width, len(line.source))
        head: Line = [(f"{line.source:<{self._width}} ", colour), ("| ", "dim")]
        if self._show_time:
            head = [(time.strftime("%H:%M:%S ", time.localtime(line.time)), "dim"), *head]
        return painted(head, colour=self._screen.colour) + safe(line.line, colour=self._screen.colour)

    def flush(self) -> None:
        import sys

        sys.stdout.flush()


def safe(text: str, *, colour: bool) -> str:
    """Without what would move the cursor; colours stay on a terminal, and end with the line."""
    if "\x1b" not in text and text.isprintable():
        return text
    kept = CONTROLS.sub(lambda found: found[0] if colour and COLOURS.fullmatch(found[0]) else "", text)
    return kept + "\x1b[0m" if "\x1b" in kept else kept


def rfc3339(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}Z"


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
