"""The table in place: what `idi up` and `idi status --watch` show."""

from __future__ import annotations

import time

from idi.cli.terminal.live import Live
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.table import all_ready, table
from idi.cli.terminal.words import took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import StatusView

STALE_S = 5.0
STARTING, STOPPING = "starting", "stopping"


class Board:
    """The newest status on the screen. `done` replaces the count as long as all is ready; while a change
    runs (`follower`) the last line says what it is `doing` and for how long."""

    def __init__(self, live: Live, hint: str = "") -> None:
        self.live = live
        self.hint = hint
        self.done = ""
        self.doing = STARTING
        self.follower: Follower | None = None
        self._view: StatusView | None = None
        self._at = time.monotonic()
        self._begun = time.monotonic()

    def take(self, view: StatusView) -> None:
        self._view = view
        self._at = time.monotonic()
        self.draw()

    def starting(self) -> None:
        """Before control answers there is nothing but the time to show."""
        waited = time.monotonic() - self._begun
        if waited > 0.3:
            self.live.show([[("starting control", ""), (f"  {took(waited)}", "dim")]])

    def draw(self) -> None:
        view = self._view
        if view is None:
            return
        done = self.done if all(all_ready(module) for module in view["modules"]) else ""
        if self.follower is not None and self.follower.end is None:
            done = f"{self.doing}, {took(self.follower.seconds)}"
            if self.doing == STARTING:
                ready = sum(all_ready(module) for module in view["modules"])
                done = f"{ready} of {len(view['modules'])} ready, {took(self.follower.seconds)}"
        lines = table(view, time.time(), self.live.width, self.hint, done)
        silent = time.monotonic() - self._at
        if silent > STALE_S:
            lines.append([(f"control has said nothing for {took(silent)}", "yellow")])
        self.live.show(lines)
