"""What a change says while it runs, for people: a line per step, in place where there is a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator

from idi.cli.failure import Failure
from idi.cli.terminal.live import Live
from idi.cli.terminal.screen import Line, Screen, folded
from idi.cli.terminal.words import plain, took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import Progress, StepView

SYMBOL_STYLES = {"+": "green", "~": "yellow", "-": "red", ".": "green"}


class Follower:
    """Takes one change's progress. `steps` False shows only failures and messages (a table shows the
    rest), `reasons` False leaves out why a step is made (whoever asked for just that knows)."""

    def __init__(
        self, screen: Screen, live: Live | None = None, *, steps: bool = True, reasons: bool = True
    ) -> None:
        self.screen = screen
        self.live = live
        self.steps = steps
        self.reasons = reasons
        self.begun = time.monotonic()
        self.end: Progress | None = None
        self.failed: list[Progress] = []
        self.changed = 0
        self._running: dict[tuple[str, str, str], float] = {}
        self._waits: dict[tuple[str, str, str], str] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begun

    def take(self, item: Progress) -> None:
        if self.screen.as_json:
            self.screen.document(item)
        kind = item["type"]
        if kind == "step":
            self._step(item, item["step"])
        elif kind == "message":
            self.say([(plain(item.get("text", "")), "")])
        elif kind == "done":
            self.end = item
        self.draw()

    def _step(self, item: Progress, step: StepView) -> None:
        key = (step["module"], step["kind"], step["text"])
        state = item.get("state", "running")
        if state == "running":
            self._running.setdefault(key, time.monotonic())
            if waits := plain(item.get("reason", "")):
                self._say_waits(key, waits)
            return
        self._running.pop(key, None)
        self._waits.pop(key, None)
        if state == "failed":
            self.failed.append(item)
            self._say_failed(item, step)
            return
        self.changed += step["symbol"] != "."
        if self.steps:
            self.say(done_line(step, item.get("seconds", 0.0), reason=self.reasons))

    def _say_waits(self, key: tuple[str, str, str], waits: str) -> None:
        """What a step waits for: beside it on a terminal, else a line each time it is another."""
        self._waits[key] = waits
        if self.steps and not self.live:
            self.say([("  … ", "yellow"), (f"{key[0]}  ", "bold"), (waits, "dim")])

    def _say_failed(self, item: Progress, step: StepView) -> None:
        """What happened, the instance's last lines, the way out."""
        reason = plain(item.get("reason", "")) or "no reason was given"
        named = reason.startswith((f"{step['module']} ", f"{step['module']}-"))
        self.say(
            [("" if named else f"{step['module']} failed: ", "alarm"), (reason, "alarm" if named else "")]
        )
        for line, times in repeated(item.get("lines", [])):
            again = f"  ({times} times)" if times > 1 else ""
            self.say([("  | ", "dim"), (plain(line), ""), (again, "dim")])
        if way_out := item.get("way_out", ""):
            self.say([(f"  {plain(way_out)}", "dim")])

    def say(self, line: Line) -> None:
        """A line that stays: above the block in a terminal, else on stdout, with --json nowhere. On a terminal
        it is broken between words, further lines a little to the right."""
        if not self.live:
            self.screen.tell(line, indent=indent_of(line))
            return
        for part in folded(line, self.live.width, indent_of(line)):
            self.live.above(part)

    def draw(self) -> None:
        """What runs right now, with the seconds counting."""
        if self.live and self.steps:
            self.live.show(self.running_lines())

    def running_lines(self) -> list[Line]:
        now = time.monotonic()
        return [
            [
                ("  … ", "yellow"),
                (f"{module}  ", "bold"),
                (self._waits.get((module, kind, text)) or plain(text), "dim"),
                (f"  {took(now - since)}", "dim"),
            ]
            for (module, kind, text), since in self._running.items()
        ]

    def failure(self, what: str) -> Failure | None:
        """How the change ended, if it did not end well; its failed steps were said already."""
        if self.end is None or self.end.get("ok"):
            return None
        reason = plain(self.end.get("reason", "")) or "No reason was given."
        way_out = self.end.get("way_out", "")
        if not self.screen.as_json:
            return Failure(f"{what} failed.", reason, way_out)
        # Nobody has read yet what the failed steps said.
        reason = " ".join([reason, *(plain(item.get("reason", "")) for item in self.failed)])
        lines = [line for item in self.failed for line in item.get("lines", [])]
        ways = [plain(each) for item in self.failed if (each := item.get("way_out", ""))]
        return Failure(f"{what} failed.", reason, " ".join(dict.fromkeys(ways)) or way_out, lines=lines)


def indent_of(line: Line) -> int:
    text = "".join(piece for piece, _ in line)
    blank = len(text) - len(text.lstrip())
    return blank + 2 if blank else 0


def done_line(step: StepView, seconds: float, *, reason: bool = True) -> Line:
    text = plain(step["text"])
    if step["kind"] == "await-ready":
        text = "ready"
    elif step["kind"] == "start-part":
        text = "started"
    elif step["kind"] == "stop-part":
        text = "stopped"
    symbol = step["symbol"] if step["symbol"] != "." else "✓"
    line: Line = [
        (f"  {symbol} ", SYMBOL_STYLES.get(step["symbol"], "")),
        (f"{step['module']}  ", "bold"),
        (text, ""),
        (f"  {took(seconds)}", "dim"),
    ]
    if step["reason"] and reason:
        line.append((f"  ({plain(step['reason'])})", "dim"))
    return line


def repeated(lines: list[str]) -> Iterator[tuple[str, int]]:
    """Each line once in a row, and how often: a crash loop says the same again and again."""
    before, times = "", 0
    for line in lines:
        if times and line != before:
            yield before, times
            times = 0
        before, times = line, times + 1
    if times:
        yield before, times
