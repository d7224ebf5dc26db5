"""Signals as something to wait on, beside sockets: Ctrl-C and its kin, a resized terminal, a stop and go on.

A handler only writes down what came; whoever waits looks. So nothing is ever interrupted in the middle,
and a second Ctrl-C can mean something else than the first.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Sequence
from types import FrameType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, Self

    class Readable(Protocol):
        def fileno(self) -> int: ...


STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """`stops` counts the requests to stop; `resumed` is set by going on after Ctrl-Z. A new size only wakes."""

    def __init__(self) -> None:
        self.stops = 0
        self.last = 0
        self.resumed = False
        self.before_pause: Callable[[], None] | None = None
        self._before: dict[int, Any] = {}
        self._reader, self._writer = -1, -1

    def __enter__(self) -> Self:
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGTERM:  # nohup stays so
                self._before[number] = signal.signal(number, self._stop)
        self._before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, lambda *_: None)
        self._before[signal.SIGCONT] = signal.signal(signal.SIGCONT, self._resume)
        self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, self._pause)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(-1)
        os.close(self._reader)
        os.close(self._writer)

    def _stop(self, number: int, _: FrameType | None) -> None:
        self.stops += 1
        self.last = number

    def _resume(self, _: int, __: FrameType | None) -> None:
        self.resumed = True

    def _pause(self, number: int, _: FrameType | None) -> None:
        """Ctrl-Z: leave the terminal as it was found, then really stop; going on, take it again."""
        if self.before_pause:
            self.before_pause()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._pause)

    def wait(self, readers: Sequence[Readable], timeout: float | None) -> list[Readable]:
        """Which readers can be read; returns early (with none) when a signal came."""
        by_number = {reader.fileno(): reader for reader in readers}
        found, _, _ = select.select([*by_number, self._reader], [], [], timeout)
        if self._reader in found:
            try:
                while os.read(self._reader, 1024):
                    pass
            except BlockingIOError:
                pass
        return [by_number[number] for number in found if number in by_number]
