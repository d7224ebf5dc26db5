"""`idi up --watch`: what was saved is what runs.

A saved file restarts the modules that it belongs to, as `idi restart` does: the new ones have to be ready before the
old ones go, so what cannot start costs nobody a request. A saved declaration is applied as by another `up`. Editors
write several files in several ways, so what comes together is taken together; what comes while a change runs waits.
"""

from __future__ import annotations

import os
import time
from collections import Counter

from idi.api.client import Answered, Client, Stream
from idi.cli.failure import Failure, from_error
from idi.cli.inotify import Watcher
from idi.cli.invocation import Invocation
from idi.cli.saved import Watched, ignored_by_git, modules_of, passing, roots, skipped
from idi.cli.terminal.live import Live
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.words import plain, took
from idi.cli.validate import doable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from idi.api.types import ChangeRequest
    from idi.cli.terminal.pump import Source, Taker
    from idi.cli.terminal.screen import Line

QUIET_S = 0.15
LONGEST_S = 1.0
"""A burst is over when nothing came for the first, or after the second."""
SOON_S = 1.0
TIMES = 5
"""A file that is written so often, each time within that long after a restart, is written by the module itself."""
SHOWN = 3


class Reload:
    """Gives its readers to a `pump`, whose tick it is called at."""

    def __init__(self, invocation: Invocation, client: Client, text: str, live: Live | None) -> None:
        self.invocation = invocation
        self.client = client
        self.live = live
        self.readers: dict[Source, Taker] = {}
        self._text = text
        self._file = os.path.realpath(invocation.file)
        self._directory = os.path.dirname(self._file)
        self._watched: Watched = {}
        self._saved: set[str] = set()
        self._first = self._last = 0.0
        self._follower: Follower | None = None
        self._stream: Stream | None = None
        self._what = ""
        self._waiting: list[str] = []
        self._restarted = 0.0
        self._again: Counter[str] = Counter()
        self._watcher = Watcher(skipped)
        self.readers[self._watcher] = self._saw
        self._declared(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
        self._watcher.__exit__()

    def tick(self) -> None:
        """Do what is due. Cheap where nothing is."""
        if self._follower is not None:
            if self._follower.end is None and self._stream is not None and not self._stream.ended:
                return
            self._done(self._follower)
        now = time.monotonic()
        if self._saved and (now - self._last >= QUIET_S or now - self._first >= LONGEST_S):
            saved, self._saved = self._saved, set()
            self._take(saved)
        if self._waiting and self._follower is None:
            modules, self._waiting = self._waiting, []
            self._begin({"action": "restart", "modules": modules}, f"Restarting {', '.join(modules)}")

    # --- what was saved

    def _saw(self, path: str) -> None:
        now = time.monotonic()
        if path != self._file and passing(path):
            return
        if not self._saved:
            self._first = now
        self._saved.add(path)
        self._last = now

    def _take(self, saved: set[str]) -> None:
        if self._watcher.lost:
            self._watcher.lost = False
            self._say("So much was written that some of it was missed: everything counts as saved.", "yellow")
            self._restart(list(self._watched))
        if self._file in saved:
            saved.discard(self._file)
            self._apply()
        ignored = ignored_by_git(saved, self._directory) if saved else set()
        modules: list[str] = []
        names: list[str] = []
        for path in sorted(saved):
            found = modules_of(path, self._directory, self._watched, ignored=path in ignored)
            if found and not self._is_its_own(path, found):
                modules += found
                names.append(self._short(path))
        if modules:
            modules = list(dict.fromkeys(modules))
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            self._say(f"{', '.join(names[:SHOWN])}{more} saved: {', '.join(modules)}", "bold")
            self._restart(modules)

    def _is_its_own(self, path: str, modules: list[str]) -> bool:
        """Whether a module seems to write the file itself: it would be restarted for ever. Nothing is held against a
        file for good; a person may be that quick."""
        soon = bool(self._restarted) and self._first - self._restarted < SOON_S
        self._again[path] = max(0, self._again[path] + (1 if soon else -1))
        if self._again[path] < TIMES:
            return False
        self._say(
            f"{self._short(path)} is written right after each restart, so {', '.join(modules)} seems to write it: left "
            "alone this time. watch: in the declaration names what matters.",
            "yellow",
        )
        return True

    def _restart(self, modules: list[str]) -> None:
        self._waiting = list(dict.fromkeys([*self._waiting, *modules]))

    def _apply(self) -> None:
        try:
            text = self.invocation.text()
            if text == self._text:
                return
            doable(self.invocation, text)
        except Failure as failure:
            if not os.path.exists(self._file):
                return  # between two steps of an editor
            self._fail(failure)
            return
        self._text = text
        self._say(f"{self.invocation.file} saved", "bold")
        if self._begin(
            {"action": "up", "text": text, "file": self.invocation.file}, f"Applying {self.invocation.file}"
        ):
            self._declared(text)

    def _declared(self, text: str) -> None:
        platform = doable(self.invocation, text).platform
        self._watched = {name: module.watch for name, module in platform.modules.items()}
        self._watcher.watch({self._directory, *roots(self._directory, self._watched)})
        if problem := self._watcher.problem:
            self._watcher.problem = None
            self._fail(problem)

    # --- the changes that follow

    def _begin(self, request: ChangeRequest, what: str) -> bool:
        self._what = what
        try:
            self._stream = self.client.change(request)
        except Answered as error:
            self._fail(from_error(error))
            return False
        self._follower = Follower(self.invocation.screen, self.live, steps=self.live is None, reasons=False)
        self.readers[self._stream] = self._follower.take
        return True

    def _done(self, follower: Follower) -> None:
        if self._stream is not None:
            self.readers.pop(self._stream, None)
            self._stream.close()
        self._stream = self._follower = None
        self._restarted = time.monotonic()
        if follower.end is None:
            self._say(f"{self._what}: control went away in the middle of it.", "yellow")
        elif failure := follower.failure(self._what):
            self._say(f"{failure.what} The former version goes on serving.", "alarm")
        else:
            self._say(f"{self._what}: done in {took(follower.seconds)}.", "green")

    def _fail(self, failure: Failure) -> None:
        for mistake in failure.mistakes:
            self._say(mistake, "")
        self._say(" ".join(filter(None, [failure.what, failure.why, failure.way_out])), "alarm")

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._directory)

    def _say(self, text: str, style: str) -> None:
        screen = self.invocation.screen
        line: Line = [(plain(text), style)]
        if screen.as_json:
            screen.err(plain(text))
        elif self.live is not None:
            self.live.above(line)
        else:
            screen.tell(line)
