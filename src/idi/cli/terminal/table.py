"""The status as a table, for `idi status` and, in place, for `idi up`. Pure: a view in, lines out.

The same on a wide terminal, a narrow one and in a file (`width` 0: as wide as it gets). What gives way
first when there is no room: the figures, then SINCE, then WHERE; a long reason goes below its row. A state
is always a word; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from idi.cli.terminal.screen import Line
from idi.cli.terminal.words import age, cut, figure, fitting, milliseconds, plain, ratio, seconds_of, wrap
from idi.cli.terminal.words import columns as columns_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import ModuleView, PartView, StatusView

STATE_STYLES = {
    "ready": "green",
    "starting": "yellow",
    "unready": "red",
    "stopping": "blue",
    "failed": "alarm",
    "absent": "dim",
}
HEADS = ("MODULE", "READY", "STATE", "SINCE", "REQ/S", "ERR", "P95", "WHERE")
LEAST = {
    "STATE": 8,
    "SINCE": 5,
    "REQ/S": 5,
    "ERR": 4,
    "P95": 6,
}  # so that columns stay put while states change
RIGHT = frozenset({"SINCE", "REQ/S", "ERR", "P95"})
INDENT = 2
GAP = 2
LEAST_NAME = 8
LEAST_WHERE = 22
REASON_LINES = 3
WIDEST_HEADER = 96


def table(view: StatusView, now: float, width: int, hint: str = "", done: str = "") -> list[Line]:
    """Header, parts, a row per module, and the last line: `done` (or how many are ready) and `hint`."""
    return [
        *header(view, width),
        *parts(view, now, width),
        *rows(view, now, width),
        *footer(view, width, hint, done),
        *remarks(view, width),
    ]


def header(view: StatusView, width: int) -> Iterator[Line]:
    target = "laptop" if view["target"] == "local" else view["target"]
    left: Line = [(view["platform"], "bold"), (f" · {view['env']} · {target}", "")]
    url = view["gateway"]["url"]
    room = min(width or WIDEST_HEADER, WIDEST_HEADER) - length(left)
    right: Line = [("gateway ", "dim"), (url, "cyan")]
    if not url:
        yield fit(left, width)
    elif room >= length(right) + 2:
        yield [*left, (" " * (room - length(right)), ""), *right]
    else:
        yield fit(left, width)
        yield fit([(" " * INDENT, ""), *right], width)


def parts(view: StatusView, now: float, width: int) -> Iterator[Line]:
    """IDI's own processes, side by side as far as they fit; a part that is not ready says why."""
    line: Line = []
    for part in view["parts"]:
        words = f"  {age(now - seconds_of(part['since']))}" if part["since"] else ""
        again = f", {part['restarts']} restarts" if part["restarts"] else ""
        again += f", {refused}" if (refused := refusals(part)) else ""
        style = STATE_STYLES.get(part["state"], "")
        cell: Line = [(f"{part['name']}  ", ""), (part["state"], style), (words + again, "dim")]
        if line and width and length(line) + 4 + length(cell) > width:
            yield fit(line, width)
            line = []
        line = [*line, ("    ", ""), *cell] if line else [(" " * INDENT, ""), *cell]
    if line:
        yield fit(line, width)
    for part in view["parts"]:
        if part["reason"] and part["state"] not in ("ready", "absent"):
            for text in wrap(plain(f"{part['name']}: {part['reason']}"), width and width - 4, REASON_LINES):
                yield [("    ", ""), (text, "yellow")]


def rows(view: StatusView, now: float, width: int) -> Iterator[Line]:
    """The module rows under their head, columns as wide as their widest cell."""
    if not view["modules"]:
        yield [("  no modules yet", "dim")]
        return
    cells = [row(module, now) for module in view["modules"]]
    shown = columns(cells, width)
    widths = [widest(cells, at) for at in range(len(HEADS))]
    taken = INDENT + sum(widths[at] + GAP for at in shown if HEADS[at] != "WHERE")
    if width and (over := taken - GAP - width) > 0:
        # A long name gives way, since what it is called is known to whoever looks; how it does is not.
        widths[0] = min(widths[0], max(LEAST_NAME, widths[0] - over))
        cells = [[cut(texts[0], widths[0]), *texts[1:]] for texts in cells]
    room = width - taken if width else 0
    beside = len(HEADS) - 1 in shown
    head: Line = [(" " * INDENT, "")]
    for at in shown:
        head.append((pad(HEADS[at], widths[at], HEADS[at]) + " " * GAP, "dim"))
    yield fit(trimmed(head), width)
    for module, texts in zip(view["modules"], cells, strict=True):
        line: Line = [(" " * INDENT, "")]
        for at in shown:
            if HEADS[at] != "WHERE":
                line.append((pad(texts[at], widths[at], HEADS[at]), style_of(HEADS[at], module)))
                line.append((" " * GAP, ""))
        where, is_reason = where_of(module)
        style = reason_style(module, is_reason)
        if beside and where.fits(room):
            yield trimmed([*line, *((piece, style) for piece in where(room))])
            continue
        yield fit(trimmed(line), width)
        if is_reason:
            for text in where(width - 4):
                yield [("    ", ""), (text, style)]


def row(module: ModuleView, now: float) -> list[str]:
    figures = module.get("figures")
    quiet = figures is None or figures["requests_per_s"] <= 0
    return [
        module["name"],
        f"{module['ready']}/{module['desired']}",
        module["state"],
        age(now - seconds_of(module["since"])) if module["since"] else "-",
        "-" if figures is None else figure(figures["requests_per_s"]),
        "-" if figures is None else ratio(figures["errors_ratio"]),
        "-" if figures is None or quiet else milliseconds(figures["p95_ms"]),
        "",
    ]


def widest(cells: Sequence[Sequence[str]], at: int) -> int:
    return max(len(HEADS[at]), LEAST.get(HEADS[at], 0), *(len(cell[at]) for cell in cells))


def columns(cells: Sequence[Sequence[str]], width: int) -> list[int]:
    """The columns that there is room for."""
    every = list(range(len(HEADS)))
    if not width:
        return every
    for left_out in ((), ("REQ/S", "ERR", "P95"), ("REQ/S", "ERR", "P95", "SINCE")):
        shown = [at for at in every if HEADS[at] not in left_out]
        taken = INDENT
        for at in shown[:-1]:
            taken += widest(cells, at) + GAP
        if width - taken >= LEAST_WHERE:
            return shown
    # Below each row then, and as many columns beside each other as fit.
    return [at for at in every if HEADS[at] in ("MODULE", "READY", "STATE")]


class Where:
    """What stands under WHERE, once it is known how much room there is."""

    def __init__(self, reason: str, addresses: list[str], most: int = 1, again: str = "") -> None:
        self.reason, self.addresses, self.most, self.again = reason, addresses, most, again

    def fits(self, room: int) -> bool:
        """Beside its row on one line: whole, or cut where that is enough for it."""
        return not room or columns_of(self.reason) <= room or self.most == 1

    def __call__(self, room: int) -> list[str]:
        if self.reason:
            return wrap(self.reason, room, self.most)
        return [listed(self.addresses, room, self.again)] if self.addresses else []


def where_of(module: ModuleView) -> tuple[Where, bool]:
    """Why it is not ready, or where its instances are."""
    reason = "" if module["state"] == "ready" else reason_of(module)
    if reason:
        # What passes by itself has one line, so that the table does not jump; what stays has more.
        passing = module["state"] in ("starting", "stopping")
        return Where(plain(reason), [], 1 if passing else REASON_LINES), True
    addresses = places(module)
    restarts = sum(instance["restarts"] for instance in module["instances"])
    again = f"{restarts} restart{'s' if restarts > 1 else ''}" if restarts and addresses else ""
    if by := next((i["by"] for i in module["instances"] if i.get("by")), ""):
        again = ", ".join(filter(None, [f"one run by {plain(by)}", again]))
    return Where("", addresses, again=", ".join(filter(None, [again, refusals(module)]))), False


def refusals(one: ModuleView | PartView) -> str:
    """How many its sidecars turned away since they started, because who asked had not declared that."""
    count = one["figures"]["denied"] if "figures" in one else 0
    return f"{count} refused" if count else ""


def reason_of(module: ModuleView) -> str:
    others = (i["reason"] for i in module["instances"] if i["state"] != "ready" and i["reason"])
    return module["reason"] or next(others, "")


def places(module: ModuleView) -> list[str]:
    """Where its ready instances are: their addresses, or on a cluster their pods, by whose names kubectl and idi logs
    know them. What two in a row have in common is written once: `127.0.0.1:20011, :20012`, `cam-6d5f-x2x4v, -9kq7c`."""
    ready = [i for i in module["instances"] if i["state"] == "ready"]
    if any("node" in i for i in ready):
        return short(sorted(i["id"] for i in ready), "-")
    return short([i["address"] for i in ready], ":")


def short(texts: list[str], mark: str) -> list[str]:
    found: list[str] = []
    before = ""
    for text in texts:
        common, there, rest = text.rpartition(mark)
        found.append(f"{mark}{rest}" if there and common == before else text)
        before = common
    return found


def listed(texts: list[str], room: int, end: str = "") -> str:
    """As many as fit, and how many more; `end` stays, whatever gives way."""
    tail = f", {end}" if end else ""
    whole = ", ".join(texts) + tail
    if not room or len(whole) <= room:
        return whole
    for kept in range(len(texts) - 1, 0, -1):
        found = f"{', '.join(texts[:kept])} + {len(texts) - kept} more{tail}"
        if len(found) <= room:
            return found
    return cut(end or texts[0], room)


def style_of(head: str, module: ModuleView) -> str:
    if head == "STATE":
        return STATE_STYLES.get(module["state"], "")
    if head == "MODULE":
        return "bold"
    if head == "READY" and module["ready"] < module["desired"]:
        return "yellow"
    figures = module.get("figures")
    if head == "ERR" and figures and figures["errors_ratio"] > 0:
        return "red"
    return "dim" if head == "SINCE" else ""


def reason_style(module: ModuleView, is_reason: bool) -> str:
    if not is_reason:
        return "dim"
    return "red" if module["state"] in ("failed", "unready") else "yellow"


def footer(view: StatusView, width: int, hint: str, done: str) -> Iterator[Line]:
    ready = sum(all_ready(module) for module in view["modules"])
    of = len(view["modules"])
    text = done or (f"{ready} of {of} ready." if of else "")
    if view["changing"] and not done:
        text += f"  {plain(view['changing'])}"
    style = "green" if of and ready == of else ""
    if not text:
        return  # nothing runs, so there is nothing to do with it
    line: Line = [(text, style), (f"   {hint}" if hint else "", "dim")]
    if not width or length(line) <= width:
        yield trimmed(line)
        return
    yield fit([(text, style)], width)
    if hint:
        line = []
        for command in hint.split("   "):
            if line and length(line) + 3 + len(command) > width:
                yield fit(line, width)
                line = []
            line = [*line, ("   " if line else "", ""), (command, "dim")]
        yield fit(line, width)


def all_ready(module: ModuleView) -> bool:
    return module["ready"] >= module["desired"] and module["state"] == "ready"


def remarks(view: StatusView, width: int) -> Iterator[Line]:
    """Updates that Envoy refused, in its own words, and what a person should read now."""
    for rejection in view["rejections"]:
        text = f"{rejection['node']} refused an update of {rejection['resource']}: {rejection['message']}"
        for at, piece in enumerate(wrap(plain(text), width and width - 2, 4)):
            yield [("! " if at == 0 else "  ", "alarm"), (piece, "red")]
    for warning in view["warnings"]:
        for at, piece in enumerate(wrap(plain(warning), width and width - 2, 4)):
            yield [("! " if at == 0 else "  ", "yellow"), (piece, "dim")]


# --- lines -------------------------------------------------------------------------------------------


def length(line: Line) -> int:
    return sum(columns_of(text) for text, _ in line)


def pad(text: str, width: int, head: str) -> str:
    return text.rjust(width) if head in RIGHT else text.ljust(width)


def trimmed(line: Line) -> Line:
    """Without blanks at the end."""
    while line and not line[-1][0].strip():
        line = line[:-1]
    if line and line[-1][0] != line[-1][0].rstrip():
        line = [*line[:-1], (line[-1][0].rstrip(), line[-1][1])]
    return line


def fit(line: Line, width: int) -> Line:
    """Cut at the width."""
    if not width or length(line) <= width:
        return line
    found: Line = []
    room = width - 1
    for text, style in line:
        found.append((text[: fitting(text, room)], style))
        room -= columns_of(text)
        if room <= 0:
            break
    return [*found, ("…", "dim")]
