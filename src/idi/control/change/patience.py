"""Waiting for instances only while they can become ready: without a certificate none can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from idi.control.change.apply import Executor, Say, StepFailed, enough, mine, nobody
from idi.control.unless import unless
from idi.plan.types import AwaitReady
from idi.world.types import InstanceId, ModuleWorld, World


@dataclass(slots=True)
class Patience(Executor):
    """`lost` says why no certificate will come (empty while one may), `lacks` who waits for one, `helps` what helps."""

    lost: Callable[[], str] = lambda: ""
    lacks: Callable[[InstanceId], bool] = lambda _: False
    helps: Callable[[], str] = lambda: "See idi logs openbao."

    async def await_ready(self, step: AwaitReady, say: Say = nobody) -> None:
        def uncertified(world: World) -> list[InstanceId]:
            return [one.id for one in mine(world, step) if self.lacks(one.id)]

        def in_vain(world: World) -> bool:
            return bool(self.lost()) and not enough(world, step) and bool(uncertified(world))

        async def ready() -> bool:
            await Executor.await_ready(
                self, step, say
            )  # not `super()`: a dataclass with slots is another class
            return True

        # Beyond what it waits itself: its time begins anew with each one that gets ready, or that goes.
        there = self.loop.world.modules.get(step.module, ModuleWorld()).instances
        longest_s = (step.count + len(there) + 1) * step.deadline_s + 1.0
        if not await unless(ready(), self.loop.wait(in_vain, longest_s)):
            if not self.lost():
                raise StepFailed(f"{step.module} is not ready after {longest_s:g} s: {self.waits_for(step)}.")
            first = next(iter(uncertified(self.loop.world)), step.module)
            raise StepFailed(f"{first} gets no certificate: {self.lost()}", self.helps())
