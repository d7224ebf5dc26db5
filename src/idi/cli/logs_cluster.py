"""`idi logs` of an environment on a cluster: control there streams them, what is shown of them is chosen here.

An expression is looked for here and not there, since one that takes a second for a line would take it from everybody.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from idi.api.types import LogView
from idi.cli.events import lines_of
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation
from idi.cli.names import unknown
from idi.cli.printer import TAIL, Printer
from idi.cli.words import plain, seconds_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import StatusView

PARTS = ("control", "gateway", "openbao")


def show(invocation: Invocation, grep: re.Pattern[str] | None) -> int:
    options = invocation.options
    client = invocation.client()
    sources = sources_of(client.status())
    known = sorted({*sources, *(module for module in sources.values() if module)})
    for name in options.modules:
        if name.removesuffix(".sidecar") not in known:
            raise unknown(name, known)
    printer = Printer(invocation.screen, sources, show_time=options.time)
    kept = Kept(options.lines or 0, each=TAIL if options.follow and options.since is None else 0)
    with client.stream("GET", f"/v1/logs?{query(options, kept, grep)}") as stream:
        for view in lines_of(stream):
            if view["type"] == "note":
                invocation.screen.warn(f"{view['source']}: {plain(view['line'])}.")
            elif view["type"] == "live":
                print_all(printer, kept.over())
            elif grep is None or grep.search(view["line"]):
                print_all(printer, kept.take(view))
    print_all(printer, kept.over())
    return DONE


def sources_of(status: StatusView) -> Mapping[str, str]:
    """Whose logs there are: name to module, or nothing for what is none."""
    found = {one["id"]: module["name"] for module in status["modules"] for one in module["instances"]}
    found |= dict.fromkeys((module["name"] for module in status["modules"]), "")
    for part in status["parts"]:
        found |= {one["id"]: part["name"] for one in part.get("instances", [])}
    return found | dict.fromkeys([*PARTS, *(part["name"] for part in status["parts"])], "")


def query(options: object, kept: Kept, grep: re.Pattern[str] | None) -> str:
    given = vars(options)
    pairs = [("source", name) for name in given["modules"]]
    if grep is None and kept.most:
        pairs.append(("tail", str(kept.most)))
    if given["since"] is not None:
        pairs.append(("since", f"{time.time() - given['since']:.3f}"))
    if given["follow"]:
        pairs.append(("follow", "1"))
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


class Shown(NamedTuple):
    time: float
    source: str
    module: str
    line: str


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
