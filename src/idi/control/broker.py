"""Who may log in at the broker, and what each may reach: a file that follows the declaration.

The broker itself is a module like any other (`idi.plan.bus`). Its accounts are no part of its revision: they are
written beside the sockets in the runtime folder (0600) whenever a declaration becomes current, and a broker that runs
is told to read them again, which ends the connections of those whose login changed and no others. A module's password
is derived from the platform's key, so it is the same after every restart and stands in no state.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from idi.control.bus_care import Health
from idi.declaration.types import ModuleName, Platform
from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus
from idi.parts.bus.nats.config import Login, render
from idi.parts.clients import private_file
from idi.parts.errors import Refused
from idi.plan.bus import BUS, PASSWORD, RELAY, RELAY_USER, grants
from idi.world.events import Event, InstanceReady
from idi.world.types import InstanceId, World

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Broker:
    """`derive` gives a key for a purpose; `world` is the world of now."""

    file: Path
    derive: Callable[[str], bytes]
    world: Callable[[], World]
    _read: str = ""
    """What the broker that runs has read, as far as it is known."""

    def declare(self, platform: Platform) -> None:
        """The declaration is current: its modules may log in."""
        if BUS not in platform.modules:
            return
        logins: dict[str, Login] = {
            grant.module: Login(grant.module, self.password(grant.module), grant.publishes, grant.consumes)
            for grant in grants(platform)
        }
        text = render(self.password(RELAY), self._watching(), logins)
        private_file.write(self.file, text.encode())
        if text != self._read:
            self._tell(text)

    def password(self, module: ModuleName) -> str:
        return self.derive(f"bus/{RELAY_USER if module == RELAY else module}").hex()

    def secret(self, module: ModuleName, path: str) -> str:
        """What a module's `${secret.PATH}` stands for."""
        if path != PASSWORD.path[1]:
            raise Refused(f"{module} asks for the secret {path}, which nobody keeps.")
        return self.password(module)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Bus]:
        """Control's own connection, over loopback; nats-py is loaded when it is needed first."""
        url = self._url()
        from idi.parts.bus.nats.bus import NatsBus

        async with NatsBus(url, RELAY_USER, self.password(RELAY)) as bus:
            yield bus

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[Health]:
        """A connection by which the broker says how it is."""
        url = self._url()
        from idi.parts.bus.nats.health import NatsHealth

        async with NatsHealth(url, self._watching()) as health:
            yield health

    def _url(self) -> str:
        module = self.world().modules.get(BUS)
        ports = [one.ports for one in module.instances.values() if one.state == "ready"] if module else []
        if not ports:
            raise BusDown("The bus is not ready.", "idi status says why.")
        return f"nats://127.0.0.1:{next(iter(ports[0].values()))}"

    def _watching(self) -> str:
        return self.derive("bus-health").hex()

    def restart(self) -> None:
        """End the broker in order; whoever keeps it starts it again."""
        self._signal(signal.SIGTERM)

    def hear(self, event: Event) -> None:
        """A broker that has just started has read what lay there; to be sure it reads once more."""
        if isinstance(event, InstanceReady) and event.module == BUS:
            self._tell(self.file.read_text())

    def _tell(self, text: str) -> None:
        # One that only starts has not read it yet, and SIGHUP would end it.
        if self._signal(signal.SIGHUP):
            self._read = text

    def _signal(self, number: signal.Signals) -> bool:
        """To every broker that is ready; whether there was one."""
        module = self.world().modules.get(BUS)
        sent = False
        for instance in module.instances.values() if module else ():
            if instance.pid and instance.state == "ready":
                try:
                    os.kill(instance.pid, number)
                    sent = True
                except ProcessLookupError:
                    log.info("%s ended before it could be told", InstanceId(instance.id))
        return sent
