"""`idi logs` of an environment on a cluster: control there streams them, what is shown of them is chosen here.

An expression is looked for here and not there, since one that takes a second for a line would take it from everybody.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from idi.api.client import NotRunning, Unanswered
from idi.cli.events import lines_of
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation
from idi.cli.names import unknown
from idi.cli.terminal.printer import Printer, Shown
from idi.cli.terminal.words import plain, seconds_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.client import Client
    from idi.api.types import LogView, StatusView

AGAIN_S = 1.0
A_TICK_S = 0.001
"""Times go over the wire in milliseconds."""
PARTS = ("control", "gateway", "openbao")


def show(invocation: Invocation, grep: re.Pattern[str] | None, tail: int) -> int:
    """`tail`: so many lines of each module are shown before what comes."""
    options = invocation.options
    client = invocation.client()
    sources = sources_of(client.status())
    known = sorted({*sources, *(module for module in sources.values() if module)})
    for name in options.modules:
        if name.removesuffix(".sidecar") not in known:
            raise unknown(name, [one for one in known if one not in sources or not sources[one]])
    printer = Printer(invocation.screen, sources, show_time=options.time)
    reading = Reading(invocation, printer, grep, tail)
    since = time.time() - options.since if options.since is not None else 0.0
    while True:
        try:
            reading.read(client, since)
            return DONE
        except (NotRunning, Unanswered):
            if not options.follow or not reading.begun:
                raise
        reading.away()
        time.sleep(AGAIN_S)
        since = reading.last


class Reading:
    """`last` is when the newest line was printed, from where a reading goes on that broke off."""

    def __init__(
        self, invocation: Invocation, printer: Printer, grep: re.Pattern[str] | None, tail: int
    ) -> None:
        options = invocation.options
        self.begun = False
        self.last = 0.0
        self._screen = invocation.screen
        self._printer = printer
        self._grep = grep
        self._names: list[str] = options.modules
        self._follow: bool = options.follow
        self._kept = Kept(options.lines or 0, each=tail if options.follow and options.since is None else 0)
        self._away = False

    def read(self, client: Client, since: float) -> None:
        with client.stream("GET", f"/v1/logs?{self._query(since)}") as stream:
            self.begun, self._away = True, False
            for view in lines_of(stream):
                self._take(view)
        self._show(self._kept.over())

    def away(self) -> None:
        """Control went away, or the way to it: said once, for the lines will come."""
        self._show(self._kept.over())
        self.last = self.last or time.time()
        if not self._away:
            self._away = True
            self._screen.warn(
                "Control in the cluster does not answer; what is printed meanwhile comes when it does."
            )

    def _take(self, view: LogView) -> None:
        if view["type"] == "note":
            self._screen.warn(f"{view['source']}: {plain(view['line'])}.")
        elif view["type"] == "live":
            self._show(self._kept.over())
        else:
            self.last = max(self.last, seconds_of(view["time"]) + A_TICK_S)
            if self._grep is None or self._grep.search(view["line"]):
                self._show(self._kept.take(view))

    def _show(self, views: Iterable[LogView]) -> None:
        print_all(self._printer, views)

    def _query(self, since: float) -> str:
        pairs = [("source", name) for name in self._names]
        if self._grep is None and self._kept.most and not self.last:
            pairs.append(("tail", str(self._kept.most)))
        if since:
            pairs.append(("since", f"{since:.3f}"))
        if self._follow:
            pairs.append(("follow", "1"))
        return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


def sources_of(status: StatusView) -> Mapping[str, str]:
    """Whose logs there are: name to module, or nothing for what is none."""
    found = {one["id"]: module["name"] for module in status["modules"] for one in module["instances"]}
    found |= dict.fromkeys((module["name"] for module in status["modules"]), "")
    for part in status["parts"]:
        found |= {one["id"]: part["name"] for one in part.get("instances", [])}
    return found | dict.fromkeys([*PARTS, *(part["name"] for part in status["parts"])], "")


class Kept:
    """Of what there was before the last lines alone, where only those are asked for: `last` of all, or `each` of every
    module or part."""

    def __init__(self, last: int, each: int) -> None:
        self.most = last or each
        self._last = last
        self._by: dict[str, deque[tuple[int, LogView]]] = {}
        self._count = 0
        self._over = self.most == 0

    def take(self, view: LogView) -> Iterable[LogView]:
        """What of it can be shown at once."""
        if self._over:
            return [view]
        group = "" if self._last else (view["module"] or view["source"])
        self._by.setdefault(group, deque(maxlen=self.most)).append((self._count, view))
        self._count += 1
        return []

    def over(self) -> Iterable[LogView]:
        """Nothing more of before comes: what was kept, in its order."""
        self._over = True
        kept = sorted((item for group in self._by.values() for item in group), key=lambda item: item[0])
        self._by.clear()
        return [view for _, view in kept]


def print_all(printer: Printer, views: Iterable[LogView]) -> None:
    some = False
    for view in views:
        some = True
        printer.show(Shown(seconds_of(view["time"]), view["source"], view["module"], view["line"]))
    if some:
        printer.flush()
