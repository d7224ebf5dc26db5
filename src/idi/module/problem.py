"""An answer that is an error, RFC 9457: raise it from a handler, and that is what the caller gets."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """`more` are members of the document beside title, status and detail."""

    def __init__(
        self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, dict(headers or {}), more

    def document(self) -> dict[str, object]:
        try:
            title = HTTPStatus(self.status).phrase
        except ValueError:
            title = "Error"
        return {**self.more, "title": title, "status": self.status, "detail": self.detail}


class NotDeclared(Problem):
    """The module does something that its declaration does not say; the message has the line that is missing."""

    def __init__(self, detail: str) -> None:
        super().__init__(500, detail)


class Misconfigured(Exception):
    """What is wrong in the environment, everything at once."""

    def __init__(self, who: str, mistakes: list[str]) -> None:
        count = f"{len(mistakes)} mistake{'s' * (len(mistakes) > 1)}"
        super().__init__("\n  ".join([f"{who} cannot start, {count} in its environment:", *mistakes]))
        self.mistakes = tuple(mistakes)
