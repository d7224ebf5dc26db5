"""What one check found."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal


class Finding:
    """`remedy` says what to do, where there is something to do."""

    def __init__(
        self, name: str, state: Literal["ok", "warn", "fail"], detail: str, remedy: str = ""
    ) -> None:
        self.name = name
        self.state = state
        self.detail = detail
        self.remedy = remedy

    def document(self) -> dict[str, str]:
        found = {"name": self.name, "state": self.state, "detail": self.detail}
        return {**found, "remedy": self.remedy} if self.remedy else found
