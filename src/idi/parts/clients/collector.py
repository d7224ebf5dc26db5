"""Python's garbage collector in processes that live long and have to be quick at any moment."""

from __future__ import annotations

import gc


def quiet_collector() -> None:
    """What was made until now stays: keep the collector from walking it, now (there is next to no garbage in it) and
    at every push."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    gc.enable()
