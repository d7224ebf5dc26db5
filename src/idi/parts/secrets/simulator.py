"""A store of secrets in memory, for tests of what stands above one; it passes the contract of the real one.

`down` is why it does not answer. `lose_answers` writes are done and their answers are lost: the one thing that
a caller can never tell from a write that was not done.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from idi.parts.errors import PartError
from idi.parts.secrets.interface import Overtaken


@dataclass
class SimulatedSecrets:
    values: dict[str, list[bytes]] = field(default_factory=dict, repr=False)
    down: str = ""
    lose_answers: int = 0

    async def version(self, path: str) -> int:
        self._answer()
        return len(self.values.get(path, ()))

    async def put(self, path: str, value: bytes, after: int) -> int:
        self._answer()
        kept = self.values.setdefault(path, [])
        if len(kept) != after:
            raise Overtaken(f"Somebody else has just set {path}.", "Set it again if yours is to hold.")
        kept.append(value)
        if self.lose_answers:
            self.lose_answers -= 1
            raise PartError("The store went away before it answered.")
        return len(kept)

    async def get(self, path: str, version: int) -> bytes | None:
        self._answer()
        kept = self.values.get(path, [])
        return kept[version - 1] if 0 < version <= len(kept) else None

    def _answer(self) -> None:
        if self.down:
            raise PartError(self.down)
