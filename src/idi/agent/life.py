"""The agent's life: everything beside each other until SIGTERM, then Envoy's end as the last thing.

As the first process of its container it gets the signals: SIGTERM and SIGINT end it, others that Envoy knows are
handed on. Where the kubelet did not ask for /stopping before (a container killed alone, a node that goes down), a pod
that still serves is taken out in the same way first; a second SIGTERM cuts that short.
"""

from __future__ import annotations

import asyncio
import signal

from idi.agent.door import Door
from idi.agent.envoy import Envoy
from idi.agent.judging import judge
from idi.agent.reporting import Reporter
from idi.agent.server import Server
from idi.agent.settings import Settings
from idi.agent.state import State
from idi.agent.stopping import Stopping
from idi.parts.errors import PartError
from idi.parts.gateway.envoy.binary import ENVOY

ENVOY_GRACE_S = 3.0
FORWARDED = (signal.SIGHUP, signal.SIGUSR1)


class _Over(Exception):
    """SIGTERM was seen to; whatever still runs is ended with it."""


async def run(settings: Settings) -> None:
    """Until SIGTERM. Raises `PartError` when there is no Envoy to start."""
    gateway = settings.module is None
    state = State(module=not gateway)
    envoy = Envoy(ENVOY.find(), settings, lambda live, reason: state.envoy(live=live, reason=reason))
    # Two connections, so that a report need not wait until the barrier is through.
    doors = [Door(*settings.control, settings.roots, settings.token) for _ in range(2)]
    reporter = Reporter(state, doors[0])
    stopping = Stopping(state, doors[1], envoy, settings.drain_s, gateway=gateway)
    counted = "gateway" if gateway else "in"
    server = Server(lambda: envoy.admin_socket, lambda: state.waiting_for, stopping.asked, counted)
    asked = _signals(envoy, stopping)
    try:
        try:
            await server.start(settings.address, settings.port)
        except OSError as error:
            raise PartError(
                f"The agent cannot listen on {settings.address}:{settings.port}: {error}."
            ) from error
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(envoy.run())
            tasks.create_task(reporter.run())
            tasks.create_task(stopping.run())
            if settings.module is not None:
                tasks.create_task(judge(settings.module, state))
            await asked.wait()
            if state.can_serve or stopping.begun.is_set():
                await stopping.end()
            raise _Over
    except* _Over:
        pass
    finally:
        server.close()
        for door in doors:
            door.close()
        await envoy.stop(ENVOY_GRACE_S)


def _signals(envoy: Envoy, stopping: Stopping) -> asyncio.Event:
    """What the kernel tells the first process of a container; the event is set at SIGTERM."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()

    def end() -> None:
        if asked.is_set():
            stopping.done.set()
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    for number in FORWARDED:
        loop.add_signal_handler(number, envoy.send, number)
    loop.add_signal_handler(signal.SIGCHLD, envoy.reap)
    return asked
