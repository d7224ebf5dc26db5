"""Modules' releases, as the target asks for them: the module's chart by Helm.

A control that is killed while Helm works leaves the release locked. Which ones it was at work on its journal says, and
the journal's lock says that it is no more: so they are put right at once by the control after it, before anything is
read of the cluster, for what was half done would be taken for done. Releases that somebody else works on are left to
the time that `Helm` gives them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from idi.declaration.plain import plains
from idi.ledger.changes import OpenChange
from idi.parts.clients.helm import Helm, charts
from idi.parts.errors import PartError

log = logging.getLogger(__name__)

RECOVERY_S = 90.0
BY_HELM = frozenset({"ensure", "remove"})
"""Steps in which Helm is at work."""


@dataclass(slots=True)
class ModuleReleases:
    """`abandoned`: those that the control before this one was at work on when it ended."""

    helm: Helm
    namespace: str
    abandoned: set[str] = field(default_factory=set)

    async def recover(self) -> None:
        """Put right what was left half done. What cannot be now is tried again before its next change."""
        try:
            async with asyncio.timeout(RECOVERY_S), asyncio.TaskGroup() as tasks:
                for module in sorted(self.abandoned):
                    tasks.create_task(self._tried(module))
        except TimeoutError:
            log.warning("releases are left half done still: %s", ", ".join(sorted(self.abandoned)))

    async def make_way(self, module: str) -> None:
        try:
            await self._put_right(module)
        except PartError as error:
            if error.retryable:
                raise
            # It cannot go back (a field that never changes, for one): forward is the way that is left.
            log.warning("%s", error)
            self.abandoned.discard(module)
        await self.helm.make_way(module, self.namespace)

    async def put(self, module: str, values: Mapping[str, Any]) -> None:
        await self.helm.upgrade(module, charts() / "module", self.namespace, values, way_made=True)

    async def render(self, module: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        return plains(await self.helm.template(module, charts() / "module", self.namespace, values))

    async def drop(self, module: str) -> None:
        await self.helm.uninstall(module, self.namespace)

    async def _tried(self, module: str) -> None:
        try:
            await self._put_right(module)
        except PartError as error:
            log.warning("%s", error)

    async def _put_right(self, module: str) -> None:
        if module in self.abandoned:
            if done := await self.helm.recover(module, self.namespace):
                log.warning("%s", done)
            self.abandoned.discard(module)


def keeps_data(values: Mapping[str, Any]) -> bool:
    """Whether a module with these values has a volume."""
    return bool(values.get("storage"))


def at_work_on(changes: Iterable[OpenChange]) -> set[str]:
    """The releases of steps that were begun and have no outcome."""
    steps = (step for change in changes for step in change.steps)
    return {step.subject for step in steps if step.outcome is None and step.action in BY_HELM}
