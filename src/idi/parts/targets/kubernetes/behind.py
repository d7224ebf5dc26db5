"""What a target knows of changes behind its back: which values each release was sent, and what is otherwise there.

It looks when it is asked to, and by itself a moment after somebody else has changed what makes a module's pods. While
a module's release is being written nothing is said of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from idi.declaration.types import ModuleName
from idi.parts.errors import IdiError
from idi.parts.targets.interface import Emit
from idi.parts.targets.kubernetes.anew import Anew
from idi.parts.targets.kubernetes.survey import Survey
from idi.world.events import RevisionDrifted
from idi.world.types import Drift, RevisionId, RevisionSpec

log = logging.getLogger(__name__)

Values = Mapping[str, Any]
SETTLE_S = 1.0
"""Whoever changes by hand changes several things at once."""


@dataclass(slots=True)
class Behind:
    """`values` says what the release of a module would be sent now, None where there is none; `busy` whether somebody
    writes it."""

    survey: Survey
    emit: Emit
    anew: Anew
    values: Callable[[ModuleName], tuple[RevisionId, Values] | None]
    busy: Callable[[ModuleName], bool]
    tasks: Callable[[], asyncio.TaskGroup]
    sent: dict[ModuleName, Values] = field(default_factory=dict)
    drift: dict[ModuleName, tuple[Drift, ...]] = field(default_factory=dict)
    _generations: dict[str, int] = field(default_factory=dict)
    _suspected: set[ModuleName] = field(default_factory=set)

    async def look(self, modules: Collection[ModuleName]) -> None:
        """Say what has become of these modules. Raises `PartError`."""
        asked: dict[ModuleName, Values] = {}
        revisions: dict[ModuleName, RevisionId] = {}
        for name in modules:
            its = None if self.busy(name) else self.values(name)
            if its is not None:
                revisions[name], asked[name] = its[0], self.sent.get(name, its[1])
        if not asked:
            return
        before = {name: self.sent.get(name) for name in asked}
        for name, found in (await self.survey.drift(asked)).items():
            if self.busy(name) or self.sent.get(name) is not before[name]:
                continue  # it was written meanwhile
            if found != self.drift.get(name, ()):
                self.drift[name] = found
                self.emit(RevisionDrifted(name, revisions[name], found))

    async def written(
        self, spec: RevisionSpec, values: Values, *, found: bool = False, again: bool = False
    ) -> None:
        """Its release has these values now; what Helm leaves of somebody else's doing goes. `found`: there was one
        already; `again`: of this revision."""
        drift, seen = self.drift.pop(spec.module, ()), spec.module in self.sent
        self.sent[spec.module] = values
        # What was added before this control came it may not have looked at.
        if any(one.added for one in drift) or (found and not seen):
            await self.survey.take_away(spec.module, values)
        if again:
            self.anew.wait(spec.module, spec.revision, await self.survey.makers(spec.module))
        else:
            self.anew.end(spec.module)

    def wrote(self, module: ModuleName) -> bool:
        return module in self.sent

    def forget(self, module: ModuleName) -> None:
        self.drift.pop(module, None)
        self.sent.pop(module, None)
        self.anew.forget(module)

    def heard(self, module: ModuleName, document: Mapping[str, Any], *, gone: bool = False) -> None:
        """What makes its pods was changed, by us or by somebody else."""
        name, generation = document["metadata"]["name"], document["metadata"].get("generation", 0)
        before = self._generations.get(name)
        self._generations[name] = generation
        if not gone:
            self.anew.heard(module, document)
        if gone or (before is not None and before != generation):
            self._suspect(module)

    def _suspect(self, module: ModuleName) -> None:
        if module not in self._suspected and not self.busy(module):
            self._suspected.add(module)
            self.tasks().create_task(self._later(module))

    async def _later(self, module: ModuleName) -> None:
        await asyncio.sleep(SETTLE_S)
        self._suspected.discard(module)
        try:
            await self.look([module])
        except IdiError as error:
            log.warning("what was changed of %s cannot be looked at: %s", module, error)
