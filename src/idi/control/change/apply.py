"""Applying a plan: journal first, then the effect, then the outcome.

`Executor` knows how to do one step on the real parts; `apply` knows the order and the journal. A step
that fails ends its lane and no other: eight modules come up while the ninth says why it did not. What
was begun and never got an outcome (control was killed) is found by the next start as an intent without
outcome; the plan is then computed again from the world, and since steps are idempotent that is all the
recovery there is.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

from idi.control.loop import Loop
from idi.parts.clients.quota_words import WAY_OUT
from idi.parts.errors import Bug, IdiError, Refused
from idi.parts.store.interface import JSON, ChangeId, StepId, Store
from idi.parts.store.interface import Step as JournalStep
from idi.parts.targets.exits import is_end, remedy
from idi.parts.targets.interface import Target
from idi.plan.describe import Described, describe
from idi.plan.difference import former
from idi.plan.types import (
    AwaitReady,
    Detach,
    Ensure,
    Lend,
    Plan,
    Remove,
    Retry,
    Run,
    StartPart,
    Step,
    StopPart,
)
from idi.world.types import Instance, InstanceId, ModuleWorld, RevisionSpec, World

log = logging.getLogger(__name__)

REFUSED_S = 20.0


@dataclass(frozen=True, slots=True)
class StepReport:
    """What a person sees of one step: `state` running, done or failed; `reason` what it waits for or why it failed;
    `lines` the instance's last."""

    step: Described
    state: Literal["running", "done", "failed"]
    seconds: float = 0.0
    reason: str = ""
    way_out: str = ""
    lines: tuple[str, ...] = ()


Report = Callable[[StepReport], None]
Say = Callable[[str], None]

SAY_S, SAY_LESS_S = 5.0, 30.0
"""How long a wait lasts before it says what it waits for, and how rarely it says so in the end."""


ELSE_REFUSED = "Mend that and run the command again; kubectl get events shows each try."
SUPERSEDED = "a newer declaration has come"


def nobody(_: str) -> None:
    """Nobody follows."""


@dataclass(slots=True)
class StepFailed(Exception):
    """A step that failed, with the words for people."""

    reason: str
    way_out: str = ""
    lines: tuple[str, ...] = ()


async def nobody_lends(spec: RevisionSpec, run: Run) -> None:
    raise Refused(f"An instance of {spec.module} cannot be run by {run.by} here.")


@dataclass(slots=True)
class Executor:
    """Does one step. `start_part` and `stop_part` come from compose: only it knows vendors. `detach` lets an
    instance go that somebody else runs, `lend` makes a seat for one. `needs` says what an instance cannot be ready
    without and does not get; empty where there is no such thing. While `leaving` (a `down` was asked for) nothing is
    worth waiting for; once `superseded` (a newer declaration has come) nothing is begun any more, either."""

    loop: Loop
    target: Target
    start_part: Callable[[str], Awaitable[None]]
    stop_part: Callable[[str], Awaitable[None]]
    detach: Callable[[InstanceId], Awaitable[None]]
    needs: Callable[[InstanceId], str] = lambda _: ""
    leaving: bool = False
    superseded: bool = False
    lend: Callable[[RevisionSpec, Run], Awaitable[None]] = nobody_lends

    def wants(self, instance: InstanceId) -> str:
        """What one lacks that lives and is merely not ready: of one that ended it would be no reason."""
        known = next((one for one in self.loop.world.instances() if one.id == instance), None)
        return "" if known is None or is_end(known.reason) else self.needs(instance)

    async def do(self, step: Step, say: Say = nobody) -> None:
        """`say` hears what it waits for, where that takes a while."""
        match step:
            case StartPart(name):
                await self.start_part(name)
            case StopPart(name):
                await self.stop_part(name)
            case Ensure(spec, count):
                await self.target.ensure(spec, count, step.around)
            case Retry(module, revision):
                await self.target.retry(module, revision)
            case AwaitReady():
                await self.await_ready(step, say)
            case Remove(module, revision):
                await self.target.remove(module, revision)
            case Lend(spec, run):
                await self.lend(spec, run)
            case Detach(_, instance):
                await self.detach(instance)

    def unwanted(self) -> str:
        """Why nothing is worth waiting for."""
        if self.leaving:
            return "the platform is to go down"
        return SUPERSEDED if self.superseded else ""

    async def await_ready(self, step: AwaitReady, say: Say = nobody) -> None:
        """Wait for readiness; a failed instance ends the wait at once with its last lines, and so does it where for
        the step's time none more got ready, or the target can make no more of them."""

        def settled(world: World) -> bool:
            return bool(self.unwanted()) or enough(world, step) or failed(world, step)

        in_time = await self._progress(step, settled, say)
        world = self.loop.world
        if enough(world, step):
            return
        if why := self.unwanted():
            raise StepFailed(f"Not waited for any longer, since {why}.")
        if (why := refused(world, step)) and not failed(world, step):
            made = f"{len(mine(world, step))} of {step.count} instances of {step.module} could be made"
            if len(mine(world, step)) >= step.count:
                made = f"The instances of {step.module} could not be made anew"
            raise StepFailed(f"{made}: {why}.", WAY_OUT if "quota" in why else ELSE_REFUSED)
        culprits = lacking(world, step)
        if not culprits and (serving := others(world, step)):
            raise StepFailed(
                f"{', '.join(i.id for i in serving)} of a former revision serves still after {step.deadline_s:g} s.",
                "kubectl describe pod says what it waits for.",
            )
        if not culprits and anew(world, step):
            raise StepFailed(
                f"Not all pods of {step.module} are made anew after {step.deadline_s:g} s.",
                "kubectl describe pod says what they wait for.",
            )
        if not culprits:
            raise StepFailed(f"{step.module} has no instance of revision {step.revision}.")
        culprit = culprits[0]
        when = "" if not in_time else "failed: "
        late = f"not ready after {step.deadline_s:g} s: " if not in_time else ""
        wants = self.wants(culprit.id)
        raise StepFailed(
            f"{culprit.id} {when}{late}{culprit.reason or 'no answer'}{'; ' if wants else ''}{wants}.",
            "It goes on waiting; idi status says what is needed." if wants else way_out_of(culprit),
            tuple(await self.target.tail(culprit.id)),
        )

    async def _progress(self, step: AwaitReady, settled: Callable[[World], bool], say: Say) -> bool:
        """Until it is settled; False where for its time nothing moved on, or the target can make no more."""
        said, pause_s, last, since = "", SAY_S, time.monotonic(), 0.0
        while not settled(self.loop.world):
            now = time.monotonic()
            left_s = last + step.deadline_s - now
            was = refused(self.loop.world, step)
            # What ends elsewhere may make room; what is refused for so long stays refused.
            since = (since or now) if was else 0.0
            if since:
                left_s = min(left_s, since + REFUSED_S - now)
            if left_s <= 0:
                return False
            before = done(self.loop.world, step)

            def moved(world: World, before: int = before, was: bool = bool(was)) -> bool:
                return settled(world) or done(world, step) > before or bool(refused(world, step)) != was

            if await self.loop.wait(moved, min(left_s, pause_s)):
                if done(self.loop.world, step) > before:
                    last = time.monotonic()
                continue
            if (words := self.waits_for(step)) != said:
                say(words)
                said = words
            pause_s = min(2 * pause_s, SAY_LESS_S)
        return True

    def waits_for(self, step: AwaitReady) -> str:
        """Whom a step waits for now, and why that one is not ready."""
        world = self.loop.world
        culprit = next(iter(lacking(world, step)), None)
        who = f"{culprit.id}: {culprit.reason or 'no answer yet'}" if culprit else "there is none yet"
        if culprit is None and (serving := others(world, step)):
            who = f"{serving[0].id} of a former revision serves still"
        if culprit is None and anew(world, step):
            who = "they are being made anew"
        if culprit is not None and (wants := self.wants(culprit.id)):
            who = f"{who}; {wants}"
        return f"{count_ready(world, step)} of {step.count} ready; {who}"


def way_out_of(culprit: Instance) -> str:
    """What helps a person whose module crashes, or answers something else than it was asked."""
    if helps := remedy(culprit.reason):
        return helps
    if " try: " in culprit.reason and culprit.pid:
        return (
            "It runs and does not answer that: it must listen on the port in PORT; what is asked is declared under "
            f"readiness. See idi logs {culprit.module}; mend it and run the command again."
        )
    return f"See idi logs {culprit.module}; mend it and run the command again."


def mine(world: World, step: AwaitReady) -> list[Instance]:
    """The instances that a step waits for."""
    module = world.modules.get(step.module, ModuleWorld())
    return [i for i in module.instances.values() if i.revision == step.revision]


def lacking(world: World, step: AwaitReady) -> list[Instance]:
    """Who keeps it waiting: those that failed, else those that are not ready."""
    there = mine(world, step)
    return [i for i in there if i.state == "failed"] or [
        i for i in there if i.state not in ("ready", "stopping")
    ]


def others(world: World, step: AwaitReady) -> list[Instance]:
    """Those of former revisions that serve, where a step waits for their end."""
    return former(world.modules.get(step.module, ModuleWorld()), step.revision) if step.alone else []


def count_ready(world: World, step: AwaitReady) -> int:
    return sum(i.state == "ready" for i in mine(world, step))


def done(world: World, step: AwaitReady) -> int:
    """Grows with each one that gets ready, and with each former one that ends."""
    return count_ready(world, step) - len(others(world, step))


def enough(world: World, step: AwaitReady) -> bool:
    return count_ready(world, step) >= step.count and not others(world, step) and not anew(world, step)


def anew(world: World, step: AwaitReady) -> bool:
    """Whether its instances are still being made anew."""
    revision = world.modules.get(step.module, ModuleWorld()).revisions.get(step.revision)
    return revision is not None and revision.anew


def refused(world: World, step: AwaitReady) -> str:
    """Why the target can make no more of them, where nothing is under way that could change that."""
    module = world.modules.get(step.module, ModuleWorld())
    revision = module.revisions.get(step.revision)
    if revision is None or not revision.degraded:
        return ""
    if len(mine(world, step)) >= step.count and not revision.anew:
        return ""
    under_way = any(i.state in ("starting", "stopping") for i in module.instances.values())
    return "" if under_way else revision.degraded


def failed(world: World, step: AwaitReady) -> bool:
    return any(i.state == "failed" for i in mine(world, step))


@dataclass(slots=True)
class Application:
    """One plan being applied under one change of the journal; without one it may only wait."""

    store: Store
    change: ChangeId | None
    executor: Executor
    report: Report
    failures: list[str] = field(default_factory=list)

    async def run(self, plan: Plan) -> list[str]:
        """Do everything; answer the reasons of what failed (empty: all done)."""
        await self._lane(plan.first)
        async with asyncio.TaskGroup() as lanes:
            for steps in plan.lanes.values():
                lanes.create_task(self._lane(steps))
        if not self.failures:
            await self._lane(plan.last)
        return self.failures

    async def _lane(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if self.executor.superseded:
                if SUPERSEDED not in self.failures:
                    self.failures.append(SUPERSEDED)
                return
            if not await self._step(step):
                return

    async def _step(self, step: Step) -> bool:
        described = describe(step)
        begun = time.monotonic()
        self.report(StepReport(described, "running"))
        try:
            # Waiting changes nothing, so it is no intention; its failure is in the change's own end.
            step_id = None if isinstance(step, AwaitReady) else await self._intend(described)
        except IdiError as error:
            self._fail(StepReport(described, "failed", 0.0, error.message, error.way_out))
            return False
        failure = await self._effect(
            step, lambda words: self.report(StepReport(described, "running", time.monotonic() - begun, words))
        )
        seconds = time.monotonic() - begun
        if step_id is not None:
            detail: dict[str, JSON] = {} if failure is None else {"reason": failure.reason[:2000]}
            try:
                await self.store.outcome(step_id, failure is None, detail)
            except IdiError as error:
                # The effect is there and its outcome is not: the next start finds and repeats it.
                failure = failure or StepFailed(error.message, error.way_out)
        if failure is not None:
            self._fail(
                StepReport(described, "failed", seconds, failure.reason, failure.way_out, failure.lines)
            )
            return False
        self.report(StepReport(described, "done", seconds))
        return True

    async def _intend(self, described: Described) -> StepId:
        assert self.change is not None
        detail: dict[str, JSON] = {"what": described.text}
        if described.brief:
            detail["why"] = described.brief[:2000]
        [step_id] = await self.store.intend(
            self.change, [JournalStep(described.kind, described.lane, detail)]
        )
        return step_id

    async def _effect(self, step: Step, say: Say) -> StepFailed | None:
        try:
            await self.executor.do(step, say)
        except StepFailed as error:
            return error
        except IdiError as error:
            return StepFailed(error.message, error.way_out)
        except Exception as error:  # ours: recorded, told, and the other lanes go on
            log.exception("a step failed by a bug: %s", step)
            bug = Bug(f"{type(error).__name__}: {error}.", "This is a bug of IDI; see idi logs control.")
            return StepFailed(bug.message, bug.way_out)
        return None

    def _fail(self, report: StepReport) -> None:
        self.failures.append(f"{report.step.lane}: {report.reason}")
        self.report(report)
