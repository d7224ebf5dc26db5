"""One of the two processes of an instance, as its supervisor sees it: whom to ask, whom to tell."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from idi.parts.targets.local.process import Process, ProcessSpec


@dataclass(frozen=True, slots=True)
class Role:
    """An `Owner` (supervisor.py) made of what an instance does for this process; it has two of them."""

    prepare: Callable[[], Coroutine[Any, Any, ProcessSpec | None]]
    spawning: Callable[[], None]
    started: Callable[[Process], None]
    died: Callable[[str], None]
    looping: Callable[[str], None]
    steady: Callable[[], None]
