"""Before anything is done: what others changed behind IDI's back, and what would be refused.

Whoever plans looks first; what was found then is in the world, and the difference to it is a step like any other. What
is seen is also an entry of the journal, once: whose doing it was is what the program that wrote it calls itself, so the
entry is control's, which saw it. No value is in it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from idi.api.types import RefusedView
from idi.control.actors import CONTROL
from idi.control.loop import Loop
from idi.declaration.types import Platform
from idi.parts.errors import IdiError
from idi.parts.store.interface import JSON, Filter, Store
from idi.parts.targets.interface import Surveyed
from idi.plan.difference import drift_words
from idi.plan.types import Ensure, Plan
from idi.world.events import Event, RevisionDrifted

log = logging.getLogger(__name__)

LOOK_S = 10.0
TRIAL_S = 15.0
SEEN = "drift"
MOST_NAMED = 20
MOST_WORDS = 4000


@dataclass(slots=True)
class Outlook:
    target: Surveyed
    loop: Loop
    store: Store
    tasks: asyncio.TaskGroup
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self.loop.listeners.append(self.hear)

    async def look(self) -> list[str]:
        """Have what others changed in the world; what could not be looked at, for whoever asked."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self.target.survey()
        except (IdiError, TimeoutError) as error:
            return [f"What others changed there was not looked at: {why(error, LOOK_S)}"]
        return []

    async def refused(self, plan: Plan, platform: Platform) -> tuple[list[RefusedView], list[str]]:
        """What would be refused of this plan to `platform`, and what nobody judged. Only what the plan changes is asked
        about."""
        steps = [step for step in plan.steps() if isinstance(step, Ensure) and step.count]
        found = await asyncio.gather(*(self._tried(step, platform) for step in steps))
        return [one for each in found for one in each[0]], [one for each in found for one in each[1]]

    async def _tried(self, step: Ensure, platform: Platform) -> tuple[list[RefusedView], list[str]]:
        module = step.spec.module
        try:
            async with asyncio.timeout(TRIAL_S):
                objections = await self.target.trial(step.spec, step.count, step.around, platform)
        except (IdiError, TimeoutError) as error:
            return [], [f"Whether {module} would be taken was not tried: {why(error, TRIAL_S)}"]
        views: list[RefusedView] = [
            {"module": module, "object": one.object, "reason": one.words, "way_out": one.way_out}
            for one in objections
        ]
        return views, []

    def hear(self, event: Event) -> None:
        if isinstance(event, RevisionDrifted) and event.drift:
            self.tasks.create_task(self._record(event))

    async def _record(self, event: RevisionDrifted) -> None:
        told = [drift_words(one, brief=True) for one in event.drift[:MOST_NAMED]]
        detail: dict[str, JSON] = {"what": "; ".join(told)[:MOST_WORDS]}
        if len(event.drift) > MOST_NAMED:
            detail["more"] = len(event.drift) - MOST_NAMED
        try:
            async with self._writing:
                about = Filter(subject=event.module)
                last = await self.store.entries(0, 1, newest=True, only=about)
                if last and last[0].action == SEEN and last[0].detail == detail:
                    return  # an earlier control saw it, and nobody has done anything about it
                await self.store.note(CONTROL, SEEN, detail, subject=event.module)
        except IdiError as error:
            log.warning("what was changed of %s is not in the journal: %s", event.module, error)


def why(error: Exception, patience_s: float) -> str:
    return f"it took more than {patience_s:g} s." if isinstance(error, TimeoutError) else str(error)
