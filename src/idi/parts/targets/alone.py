"""What `Surveyed` is where nobody else changes what a target keeps: there is nothing to see, and nobody who refuses."""

from __future__ import annotations

from collections.abc import Collection

from idi.declaration.types import ModuleName, Platform
from idi.parts.targets.interface import Objection
from idi.world.types import RevisionSpec


class Alone:
    async def survey(self, modules: Collection[ModuleName] | None = None) -> None:
        """Nobody else is here."""

    async def trial(
        self,
        spec: RevisionSpec,  # noqa: ARG002
        count: int,  # noqa: ARG002
        around: str = "",  # noqa: ARG002
        platform: Platform | None = None,  # noqa: ARG002
    ) -> list[Objection]:
        return []
