"""One change at a time: from a request to a plan, through the journal, to an end.

`Change` is what a client watches: progress items are kept, so that a client that comes late (or two of
them) sees all of it, and one that goes away stops nothing. The number of items is bounded by the number
of steps of one plan, and what a step waits for is said ever more rarely.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from idi.api.types import Progress
from idi.api.views import step_view
from idi.control.change.apply import StepReport

MOST_NAMED = 3


@dataclass(slots=True)
class Change:
    """The progress of one change, from accepted to done; `gave_way` where it ended for one that came after it."""

    title: str
    items: list[Progress] = field(default_factory=list)
    ended: bool = False
    gave_way: bool = False
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, item: Progress) -> None:
        self.items.append(item)
        self.ended = item["type"] == "done"
        news, self._news = self._news, asyncio.Event()
        news.set()

    def step(self, report: StepReport) -> None:
        item: Progress = {
            "type": "step",
            "step": step_view(report.step),
            "state": report.state,
            "seconds": round(report.seconds, 3),
        }
        if report.reason:
            item["reason"] = report.reason
        if report.way_out:
            item["way_out"] = report.way_out
        if report.lines:
            item["lines"] = list(report.lines)
        self.tell(item)

    def message(self, text: str) -> None:
        self.tell({"type": "message", "text": text})

    def done(self, ok: bool, reason: str = "", way_out: str = "") -> None:
        item: Progress = {"type": "done", "ok": ok}
        if reason:
            item["reason"] = reason
        if way_out:
            item["way_out"] = way_out
        self.tell(item)

    def doing(self) -> str:
        """The steps that it is at, and what they wait for."""
        running: dict[tuple[str, str], str] = {}
        for item in self.items:
            if item["type"] != "step":
                continue
            step = item["step"]
            key = (step["module"], step["text"])
            if item.get("state") == "running":
                running[key] = f"{step['module']}: {item.get('reason') or step['text']}"
            else:
                running.pop(key, None)
        named = [*running.values()][:MOST_NAMED]
        more = [f"{len(running) - MOST_NAMED} more"] if len(running) > MOST_NAMED else []
        return "; ".join([*named, *more]) or "between two steps"

    async def follow(self) -> AsyncIterator[Progress]:
        """Every item from the first one on, until the last."""
        seen = 0
        while True:
            while seen < len(self.items):
                item = self.items[seen]
                seen += 1
                yield item
                if item["type"] == "done":
                    return
            await self._news.wait()
