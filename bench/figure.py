"""What every figure has in common: sides measured in turn, the median and its noise, one way to print it.

A ratio compares two things that were measured moments apart, so that whatever else the machine does falls on
both; the repetitions alternate (A B A B ...) and each pair gives one ratio. The median of those is the value, the
smallest and the largest are its noise. The load average is printed beside them: on a busy machine a figure says
more about that than about what it measures.

    python -m bench.NAME [--short] [--runs N] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")

ROOT = Path(__file__).resolve().parents[1]
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Options:
    """`short` is what `make bench` asks for; `runs` repetitions where the user named a number."""

    short: bool = False
    runs: int = 0

    def count(self, short: int, full: int) -> int:
        return short if self.short else full

    def repetitions(self, short: int, full: int) -> int:
        return self.runs or self.count(short, full)


@dataclass(frozen=True)
class Spread:
    """A median, and from where to where the single values went."""

    value: float
    low: float
    high: float
    count: int

    @staticmethod
    def of(values: Iterable[float]) -> Spread:
        known = sorted(values)
        return Spread(statistics.median(known), known[0], known[-1], len(known))

    @staticmethod
    def ratios(pairs: Iterable[tuple[float, float]]) -> Spread:
        """Of the first of each pair to the second."""
        return Spread.of(first / second for first, second in pairs)


@dataclass(frozen=True)
class Figure:
    """One line of the result. `at_least` or `at_most` is the aim, `stretch` what would be better than that (at
    most), `detail` what a reader may ask next."""

    what: str
    spread: Spread
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    stretch: float | None = None
    detail: Mapping[str, object] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        if self.at_least is not None:
            return self.spread.value >= self.at_least
        return None if self.at_most is None else self.spread.value <= self.at_most

    def line(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        text = f"{self.what}: {neat(self.spread.value)}{unit}"
        if self.spread.count > 1:
            text += f" ({neat(self.spread.low)} to {neat(self.spread.high)}, {self.spread.count} times)"
        aim = self.at_most if self.at_least is None else self.at_least
        if aim is not None:
            sign = "at most" if self.at_least is None else "at least"
            text += f"; aim {sign} {neat(aim)}{unit}: {'met' if self.met else 'MISSED'}"
            if self.met and self.stretch is not None:
                text += f", even {neat(self.stretch)}{unit}" if self.spread.value <= self.stretch else ""
        return text

    def document(self) -> dict[str, object]:
        return {
            "what": self.what,
            "value": round(self.spread.value, 4),
            "low": round(self.spread.low, 4),
            "high": round(self.spread.high, 4),
            "times": self.spread.count,
            "unit": self.unit,
            "at_least": self.at_least,
            "at_most": self.at_most,
            "stretch": self.stretch,
            "met": self.met,
            "detail": dict(self.detail),
        }


def neat(value: float) -> str:
    """Three digits that say something."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


async def in_turn(
    runs: int, *sides: Callable[[], Awaitable[Result]], progress: str = ""
) -> list[tuple[Result, ...]]:
    """Measure every side, one after the other, so many times."""
    found = []
    for run in range(runs):
        if progress:
            say(f"{progress} {run + 1}/{runs}")
        found.append(tuple([await side() for side in sides]))
    return found


def main(name: str, measure: Callable[[Options], Sequence[Figure]]) -> int:
    """The command line of one figure."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{name}")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--short", action="store_true", help="small counts, for a quick look")
    parser.add_argument("--runs", type=int, default=0, help="so many repetitions")
    given = parser.parse_args()
    before = load_average()
    figures = measure(Options(given.short, given.runs))
    after = load_average()
    if given.json:
        document = {
            "bench": name,
            "cores": os.cpu_count(),
            "load": [before, after],
            "figures": [each.document() for each in figures],
        }
        print(json.dumps(document))
        return 0
    for each in figures:
        print(f"{name}: {each.line()}")
        for key, value in each.detail.items():
            print(f"    {key}: {value}")
    print(f"    load average {before:g} before, {after:g} after, {os.cpu_count()} cores", flush=True)
    return 0


def say(text: str) -> None:
    """Progress, on stderr."""
    print(f"    {text}", file=sys.stderr, flush=True)


def load_average() -> float:
    return round(os.getloadavg()[0], 2)


# --- cores -----------------------------------------------------------------------------------------------


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started inside runs on this core alone, and so does this thread. Where a system has no such thing
    nothing happens; with one core everything shares it."""
    if not CORES:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CORES[core % len(CORES)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def placing() -> str:
    """What the pins came to, for the reader."""
    if not CORES:
        return "not pinned: this system cannot"
    return f"pinned to cores {CORES[0]} and {CORES[1]}" if len(CORES) > 1 else "one core for everything"


# --- processes (Linux) -----------------------------------------------------------------------------------


def cpu_seconds(pids: Iterable[int | str]) -> float:
    """Processor time that they have used so far; those that are gone count nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def memory_mb(pid: int | str, name: str = "Pss") -> float:
    """`Pss` (shared pages divided among those who share them) or `Rss`."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
