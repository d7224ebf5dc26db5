"""How a command ends when it does not end well: an exit code and what a person reads."""

from __future__ import annotations

from collections.abc import Sequence

from idi.api.errors import IdiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DONE, FAILED, USAGE, NOT_RUNNING, INTERRUPTED = 0, 1, 2, 3, 130


class Failure(Exception):
    """What happened, why, the way out: one line each, in that order. `lines` are an instance's last ones."""

    def __init__(
        self,
        what: str,
        why: str = "",
        way_out: str = "",
        *,
        code: int = FAILED,
        lines: Sequence[str] = (),
        mistakes: Sequence[str] = (),
        title: str = "",
    ) -> None:
        super().__init__(what)
        self.what, self.why, self.way_out = what, why, way_out
        self.code = code
        self.lines = tuple(lines)
        self.mistakes = tuple(mistakes)
        self.title = title

    def problem(self) -> dict[str, Any]:
        """As an RFC 9457 document, for `--json`."""
        titles = {USAGE: "Wrong usage", NOT_RUNNING: "Not running", INTERRUPTED: "Interrupted"}
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title or titles.get(self.code, "Failed"),
            "detail": f"{self.what} {self.why}".strip(),
            "exit": self.code,
        }
        if self.way_out:
            found["way_out"] = self.way_out
        if self.mistakes:
            found["mistakes"] = list(self.mistakes)
        if self.lines:
            found["lines"] = list(self.lines)
        return found


class Ended(Exception):
    """The command is over and has said everything itself."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def usage(what: str, way_out: str = "", why: str = "") -> Failure:
    return Failure(what, why, way_out, code=USAGE)


def invalid(mistakes: Sequence[str], ending: str = "nothing was changed") -> Failure:
    """A declaration with mistakes: they speak for themselves, a last line counts them."""
    count = f"{len(mistakes)} mistake{'s' if len(mistakes) != 1 else ''}"
    return Failure(f"{count}, {ending}.", code=USAGE, mistakes=mistakes, title="Invalid declaration")


def from_error(error: IdiError) -> Failure:
    """What the control API (or an offline part) said, as this command's end."""
    from idi.api.client import Answered, Unanswered

    if isinstance(error, Unanswered):
        return Failure(error.message, "", error.way_out, code=NOT_RUNNING, title="Not reachable")
    if isinstance(error, Answered):
        problem = error.problem
        if problem.get("mistakes"):
            return invalid(problem["mistakes"])
        code = USAGE if problem["status"] in (400, 404, 422) else FAILED
        return Failure(error.message, "", error.way_out, code=code, title=problem["title"])
    return Failure(error.message, "", error.way_out)
