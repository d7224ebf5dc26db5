"""The simulator is a function of its seed and of what is done to it."""

from idi.declaration.types import ModuleName
from idi.parts.targets.simulator import Knobs, SimulatedTarget
from idi.world.events import Event, InstanceReady
from idi.world.fold import fold
from idi.world.types import Instance, InstanceId, World
from tests.support.targets import make_spec


async def retire(_: Instance) -> None:
    """At once."""


async def run(seed: int) -> list[Event]:
    events: list[Event] = []
    async with SimulatedTarget(events.append, retire, knobs=Knobs(start_s=1.0), seed=seed) as target:
        await target.ensure(make_spec(), 5)
        target.advance(0.8)
        target.crash(InstanceId("jede-2"))
        target.advance(10)
        await target.remove(ModuleName("jede"), make_spec().revision)
    return events


async def test_the_same_seed_gives_the_same_run() -> None:
    assert await run(1) == await run(1)
    assert await run(1) != await run(2)


async def test_without_a_start_time_nothing_has_to_be_waited_for() -> None:
    events: list[Event] = []
    async with SimulatedTarget(events.append, retire) as target:
        await target.ensure(make_spec(), 2)
        assert [type(event) for event in events].count(InstanceReady) == 2
        world = World()
        for event in events:
            world, _ = fold(world, event)
        assert {one.state for one in world.instances()} == {"ready"}
