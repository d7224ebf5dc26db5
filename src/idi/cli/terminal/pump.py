"""Waiting on several streams of control at once, on signals, and on the clock."""

from __future__ import annotations

import time
from collections.abc import Callable

from idi.api.client import NotRunning, Stream
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.signals import Signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from idi.cli.terminal.view import Board

    class Source(Protocol):
        """A stream of control, or something else to wait on beside them."""

        @property
        def ended(self) -> bool: ...

        def fileno(self) -> int: ...

        def ready(self) -> list[Any]: ...

    Taker = Callable[[Any], None]

TICK_S = 0.25


def pump(
    readers: dict[Source, Taker],
    signals: Signals,
    *,
    until: Callable[[], bool],
    tick: Callable[[], None] | None = None,
) -> bool:
    """Hand each stream's documents to its taker until `until()` holds or every stream of control has ended.

    `until` is asked after whatever came: a document, a signal, a tick, which may change the readers. False when
    control went away in the middle of one (what the others still had to say was taken).
    """
    due = time.monotonic()
    lost: set[Source] = set()
    taken = list(readers)  # what came with the headers is there already, and select does not see it
    while True:
        for stream in taken:
            try:
                for document in stream.ready():
                    readers[stream](document)
            except NotRunning:
                lost.add(stream)
        going = [stream for stream in readers if not stream.ended and stream not in lost]
        if until() or not any(isinstance(stream, Stream) for stream in going):
            return not lost
        if tick and time.monotonic() >= due:
            tick()
            due = time.monotonic() + TICK_S
            going = [stream for stream in readers if not stream.ended and stream not in lost]
        timeout = None if tick is None else max(0.0, due - time.monotonic())
        ready = signals.wait(going, timeout)
        taken = [stream for stream in going if stream in ready]


def follow(
    stream: Stream,
    follower: Follower,
    signals: Signals,
    board: Board | None = None,
    watch: Stream | None = None,
) -> bool:
    """Show one change until it is done, with the board around it if there is one; False when a signal to
    stop came first."""
    stops = signals.stops
    live = follower.live
    readers: dict[Source, Taker] = {stream: follower.take}
    if board and watch:
        readers[watch] = board.take

    def tick() -> None:
        if board:
            board.draw()
        follower.draw()

    pump(
        readers,
        signals,
        until=lambda: follower.end is not None or signals.stops > stops or stream.ended,
        tick=tick if live else None,
    )
    return signals.stops == stops or follower.end is not None
