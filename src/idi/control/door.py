"""The gateway's process as control keeps it: started or adopted, ready when it has all its listeners."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from idi.control.loop import Loop
from idi.control.settings import Settings
from idi.control.trust.identities import Identities
from idi.parts.clients import private_file
from idi.parts.errors import PartError, Refused
from idi.parts.gateway.envoy.start import ProxyStart
from idi.parts.targets.local.part import Part
from idi.parts.targets.local.ports import port_is_free
from idi.parts.targets.local.process import ProcessSpec
from idi.parts.targets.local.target import LocalTarget
from idi.traffic.types import GATEWAY
from idi.world.events import PartChanged
from idi.world.types import World

log = logging.getLogger(__name__)

READY_S = 60.0
ACCEPT_S = 1.0


@dataclass(slots=True)
class Door:
    """`make` says how its proxy is started (again at each start of control: it names the program), `lost` why no
    certificate will come; empty while one may."""

    settings: Settings
    target: LocalTarget
    loop: Loop
    identities: Identities
    make: Callable[[], ProxyStart]
    log_file: Path
    lost: Callable[[], str] = lambda: ""
    part: Part | None = None
    _has_listeners: bool = False
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Start or adopt it, and return when it serves. Idempotent."""
        async with self._starting:
            if self.part is None:
                self.identities.add(GATEWAY, GATEWAY)
                self.part = await self._run()
            # Said before there was a part, or overtaken by "starting". An adopted one serves by what it has,
            # also while it cannot be told anything new (the certificate authority is down).
            self.ready(self._has_listeners or await self._accepts())

        def serves(world: World) -> bool:
            part = world.parts.get(GATEWAY)
            return part is not None and part.state == "ready"

        def settled(world: World) -> bool:
            return serves(world) or self._in_vain()

        if not await self.loop.wait(settled, READY_S):
            part = self.loop.world.parts.get(GATEWAY)
            rejected = [r.message for r in self.loop.plane.rejections() if r.node == GATEWAY]
            why = rejected[0] if rejected else part.reason if part and part.reason else "no reason known"
            raise PartError(
                f"The gateway does not serve after {READY_S:g} s: {why}.", "See idi logs gateway."
            )

        if not serves(self.loop.world):
            raise PartError(f"The gateway gets no certificate: {self.lost()}", "See idi logs openbao.")

    def _in_vain(self) -> bool:
        return bool(self.lost()) and self.identities.lacks(GATEWAY)

    async def take_up(self) -> None:
        """Adopt it after a restart of control; what is wrong with it shows in its state."""
        try:
            await self.start()
        except PartError as error:
            log.warning("%s", error)

    async def stop(self) -> None:
        self.part = None
        await self.target.stop_part(GATEWAY)
        self.identities.remove(GATEWAY)

    def ready(self, has_listeners: bool) -> None:
        """The data plane says whether it has acknowledged all of its listeners."""
        self._has_listeners = has_listeners
        if self.part is None or not self.part.alive:
            return
        known = self.loop.world.parts.get(GATEWAY)
        state = "ready" if has_listeners else "starting"
        if known is None or known.state != state:
            reason = "" if has_listeners else "waiting for its listeners"
            self.loop.emit(
                PartChanged(
                    GATEWAY, "ready" if has_listeners else "starting", time.time(), self.part.pid, reason
                )
            )

    def check_port(self) -> None:
        """Refuse before anything is begun when somebody else holds the gateway's port."""
        port = self.settings.gateway_port
        if self.part is None and GATEWAY not in self.target.recorded_parts() and not port_is_free(port):
            raise Refused(
                f"Port {port}, which the gateway needs, is taken.",
                "End who holds it, or choose another port with --gateway-port.",
            )

    async def _accepts(self) -> bool:
        """Whether it takes connections: a proxy that is only starting has no listener yet."""
        address = self.settings.gateway_address, self.settings.gateway_port
        try:
            async with asyncio.timeout(ACCEPT_S):
                _, writer = await asyncio.open_connection(*address)
        except OSError:
            return False
        writer.close()
        return True

    async def _run(self) -> Part:
        start = self.make()

        async def before_start() -> None:
            for path, content in start.files.items():
                private_file.write(Path(path), content)

        process = ProcessSpec(
            name=GATEWAY,
            role="part",
            argv=start.argv,
            env=start.environment,
            cwd=self.settings.paths.state,
            log=self.log_file,
        )
        return await self.target.run_part(process, before_start)
