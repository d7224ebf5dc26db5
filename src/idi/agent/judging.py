"""Judges the module as its declaration says, and hears of its death from the kernel.

While it starts it is asked soon and then at growing pauses, from then on every `every_s`, as on a laptop
(`targets.readiness`). Beside that the kernel is listened to from the first success on: where nobody listens on its
port any more it is unready at once, whatever `failures` says, and the questions begin as for a new start, because the
kubelet is starting another process there.
"""

from __future__ import annotations

import asyncio

from idi.agent.listening import until_nobody_listens
from idi.agent.settings import Module
from idi.agent.state import State
from idi.parts.targets.readiness import Verdict, network_probe, watch


async def judge(module: Module, state: State) -> None:
    """Until cancelled."""
    readiness = module.readiness
    if readiness.command:
        reason = (
            f"its readiness is the command '{readiness.command}', which cannot be run from another container: "
            "declare http or tcp for this environment"
        )
        state.module(ready=False, reason=reason)
        return
    while True:
        await _one_life(module, state)
        state.module(ready=False, reason=f"port {module.port}: connection refused, its process has ended")


async def _one_life(module: Module, state: State) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    first = asyncio.Event()

    def tell(verdict: Verdict) -> None:
        if verdict.ready:
            first.set()
        state.module(ready=verdict.ready, reason=verdict.reason)

    async with asyncio.TaskGroup() as tasks:
        what, probe = network_probe(module.readiness, module.port)
        asking = tasks.create_task(
            watch(module.readiness, what, probe, tell, up_s=lambda: loop.time() - began)
        )
        await first.wait()
        await until_nobody_listens(module.port)
        asking.cancel()
