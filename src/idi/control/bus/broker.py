"""Who may log in at the broker, and what each may reach: a file that follows the declaration.

The broker itself is a module like any other (`idi.plan.bus`). Its accounts are no part of its revision: they are
handed to where it runs whenever a declaration becomes current, and a broker that runs is told to read them again, which
ends the connections of those whose login is gone and no others. How that is done, and how control reaches it, is the
place's: on a laptop a file beside the sockets in the runtime folder (0600) and a signal (`BrokerHere`), on a cluster
as in pod.py. A module's password is derived from a key, so it is the same after every restart and stands in no state.

The key is the platform's until the logins are rotated, then one of its own for each version, beside that. While
instances go from one version to the next both are good: an instance logs in for its life by the version with which it
started. The former ends when none of it is left (`settle`), and that is seen at the latest by the next `up`; until
then its key is there.
"""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from idi.control.bus.care import Health
from idi.declaration.types import ModuleName, Platform
from idi.parts.bus.errors import BusDown
from idi.parts.bus.interface import Bus
from idi.parts.bus.nats.config import Login, render
from idi.parts.clients import private_file
from idi.parts.errors import PartError, Refused
from idi.plan.bus import BUS, LOGIN_PATH, RELAY, RELAY_USER, grants
from idi.world.events import Event, InstanceReady
from idi.world.types import Instance, InstanceId, World

log = logging.getLogger(__name__)

KEY_FILE = "bus-key"


class Place(Protocol):
    """Where the broker runs."""

    def take(self, text: str) -> None:
        """What its configuration is from now on."""

    def again(self) -> None:
        """One that runs is to read it once more."""

    def restart(self) -> None:
        """End it in order; whoever keeps it starts it again."""

    def reach(self) -> tuple[str, ssl.SSLContext | None]:
        """Its URL, and by which TLS. Raises `BusDown` where there is none that is ready."""


@dataclass(slots=True)
class Broker:
    """`derive` gives a key for a purpose; `version` is that of the logins that holds, whose keys lie in `keys`."""

    place: Place
    derive: Callable[[str], bytes]
    version: Callable[[], int] = lambda: 0
    keys: Path = Path()

    def declare(self, platform: Platform) -> None:
        """The declaration is current: its modules may log in."""
        if BUS not in platform.modules:
            return
        logins: dict[str, Login] = {
            grant.module: Login(grant.module, self.users(grant.module), grant.publishes, grant.consumes)
            for grant in grants(platform)
        }
        self.place.take(render(self.users(RELAY), watching(self.derive), logins))

    def settle(self, platform: Platform) -> None:
        """Nobody runs with a former login any more."""
        version = self.version()
        if not self.settled(version):
            self._key(version - 1).unlink()
            self.declare(platform)

    def settled(self, version: int) -> bool:
        """Whether only that version is good."""
        return version == 0 or not self._key(version - 1).exists()

    def make(self, version: int) -> None:
        """The key of these logins is on disk, and the former's says that they are good as well. Idempotent."""
        if version == 1:
            private_file.write(self._key(0), b"")
        if not self._key(version).exists():
            private_file.write(self._key(version), secrets.token_bytes(32))

    def users(self, module: ModuleName) -> tuple[tuple[str, str], ...]:
        """Every login of a module that is good now, the one that holds first."""
        version = self.version()
        good = [version] if self.settled(version) else [version, version - 1]
        return tuple(self.login(module, each) for each in good)

    def login(self, module: ModuleName, version: int) -> tuple[str, str]:
        user = RELAY_USER if module == RELAY else module
        if version == 0:
            return user, self.derive(f"bus/{user}").hex()
        try:
            key = self._key(version).read_bytes()
        except OSError as error:
            raise PartError(
                f"{self._key(version)} cannot be read: {error.strerror or error}.",
                "Put it back from your copy, or run idi keys rotate bus.",
                retryable=False,
            ) from error
        return f"{user}.{version}", hmac.digest(key, user.encode(), "sha256").hex()

    def secret(self, module: ModuleName, path: str, version: int) -> str:
        """What a module's `${secret.PATH}` stands for."""
        if path != LOGIN_PATH:
            raise Refused(f"{module} asks for the secret {path}, which nobody keeps.")
        return ":".join(self.login(module, version))

    def _key(self, version: int) -> Path:
        return self.keys / f"{KEY_FILE}-{version}"

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Bus]:
        """Control's own connection; nats-py is loaded when it is needed first."""
        url, tls = self.place.reach()
        from idi.parts.bus.nats.bus import NatsBus

        async with NatsBus(url, *self.login(RELAY, self.version()), tls) as bus:
            yield bus

    @asynccontextmanager
    async def ask(self) -> AsyncIterator[Health]:
        """A connection by which the broker says how it is."""
        url, tls = self.place.reach()
        from idi.parts.bus.nats.health import NatsHealth

        async with NatsHealth(url, watching(self.derive), tls) as health:
            yield health

    def restart(self) -> None:
        """End the broker in order; whoever keeps it starts it again."""
        self.place.restart()

    def hear(self, event: Event) -> None:
        """A broker that has just started has read what lay there; to be sure it reads once more. So it does when the
        relay has made what is declared: to NATS an account that came with a reading, as that of a module with its
        first event does, reaches nothing before the reading after that."""
        if isinstance(event, InstanceReady) and event.module in (BUS, RELAY):
            self.place.again()


def watching(derive: Callable[[str], bytes]) -> str:
    """The password in the broker's own account."""
    return derive("bus-health").hex()


def ready(world: World) -> Instance | None:
    """The broker that there is now."""
    module = world.modules.get(BUS)
    return next((one for one in module.instances.values() if one.state == "ready"), None) if module else None


@dataclass(slots=True)
class BrokerHere:
    """The broker as a process of this machine: control writes its file, sends it signals, and comes by loopback."""

    file: Path
    world: Callable[[], World]
    _read: str = ""
    """What the broker that runs has read, as far as it is known."""

    def take(self, text: str) -> None:
        private_file.write(self.file, text.encode())
        if text != self._read:
            self._tell(text)

    def again(self) -> None:
        self._tell(self.file.read_text())

    def restart(self) -> None:
        self._signal(signal.SIGTERM)

    def reach(self) -> tuple[str, None]:
        one = ready(self.world())
        if one is None:
            raise BusDown("The bus is not ready.", "idi status says why.")
        return f"nats://127.0.0.1:{next(iter(one.ports.values()))}", None

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
