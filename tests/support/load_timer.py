"""An alarm for absolute times, to some tens of microseconds.

asyncio rounds its waits up to the next millisecond, which an open-loop generator would add to every latency. Linux has
timers that are read like files (timerfd), and the event loop waits for those exactly. Elsewhere its own wait does.
"""

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Callable

CLOCK_MONOTONIC = 1  # the clock of loop.time() on Linux
TFD_TIMER_ABSTIME = 1
TFD_NONBLOCK_CLOEXEC = 0o4000 | 0o2000000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Calls back once for each time that is set; a new time replaces the old one."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._fd = -1
        libc = ctypes.CDLL(None, use_errno=True)
        if hasattr(libc, "timerfd_create"):
            self._fd = libc.timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK_CLOEXEC)
        if self._fd >= 0:
            self._spec = _Itimerspec()
            self._reference = ctypes.byref(self._spec)
            self._settime = libc.timerfd_settime
            self._loop.add_reader(self._fd, self._rang)

    def at(self, when: float) -> None:
        """Set the alarm to a time of the loop's clock."""
        if self._fd < 0:
            if self._handle is not None:
                self._handle.cancel()
            self._handle = self._loop.call_at(when, self._callback)
            return
        nanoseconds = max(1, int(when * 1e9))  # zero would switch it off
        value = self._spec.value
        value.seconds, value.nanoseconds = divmod(nanoseconds, 1_000_000_000)
        if self._settime(self._fd, TFD_TIMER_ABSTIME, self._reference, None) != 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rang(self) -> None:
        with contextlib.suppress(BlockingIOError):  # set anew since it rang
            os.read(self._fd, 8)
            self._callback()
