"""Waiting on several streams of control at once, on signals, and on the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from idi.api.client import Stream
from idi.cli.progress import Follower
from idi.cli.signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Taker = Callable[[Any], None]

TICK_S = 0.25


def pump(
    readers: dict[Stream, Taker],
    signals: Signals,
    *,
    until: Callable[[], bool],
    tick: Callable[[], None] | None = None,
) -> None:
    """Hand each stream's documents to its taker until `until()` holds or every stream has ended.

    `until` is asked after whatever came: a document, a signal, a tick.
    """
    due = time.monotonic()
    taken = list(readers)  # what came with the headers is there already, and select does not see it
    while True:
        for stream in taken:
            for document in stream.ready():
                readers[stream](document)
        going = [stream for stream in readers if not stream.ended]
        if until() or not going:
            return
        if tick and time.monotonic() >= due:
            tick()
            due = time.monotonic() + TICK_S
        timeout = None if tick is None else max(0.0, due - time.monotonic())
        ready = signals.wait(going, timeout)
        taken = [stream for stream in going if stream in ready]


def follow(stream: Stream, follower: Follower, signals: Signals) -> bool:
    """Show one change until it is done; False when a signal to stop came first."""
    stops = signals.stops
    live = follower.live

    def tick() -> None:
        if live and signals.resized:
            signals.resized = False
            live.resume()
        follower.draw()

    pump(
        {stream: follower.take},
        signals,
        until=lambda: follower.end is not None or signals.stops > stops,
        tick=tick if live else None,
    )
    return follower.end is not None or stream.ended
