"""Waiting for instances only while they can become ready: without a certificate none can."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from idi.control.apply import Executor, StepFailed, enough, mine
from idi.control.unless import unless
from idi.plan.types import AwaitReady
from idi.world.types import InstanceId, World


@dataclass(slots=True)
class Patience(Executor):
    """`lost` says why no certificate will come (empty while one may), `lacks` who waits for one, `helps` what helps."""

    lost: Callable[[], str] = lambda: ""
    lacks: Callable[[InstanceId], bool] = lambda _: False
    helps: Callable[[], str] = lambda: "See idi logs openbao."

    async def await_ready(self, step: AwaitReady) -> None:
        def lacking(world: World) -> list[InstanceId]:
            return [one.id for one in mine(world, step) if self.lacks(one.id)]

        def in_vain(world: World) -> bool:
            return bool(self.lost()) and not enough(world, step) and bool(lacking(world))

        async def ready() -> bool:
            await Executor.await_ready(self, step)  # not `super()`: a dataclass with slots is another class
            return True

        if not await unless(ready(), self.loop.wait(in_vain, step.deadline_s + 1.0)):
            first = next(iter(lacking(self.loop.world)), step.module)
            raise StepFailed(f"{first} gets no certificate: {self.lost()}", self.helps())
