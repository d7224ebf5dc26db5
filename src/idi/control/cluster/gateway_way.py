"""The gateway for people who come by port-forward: a port on loopback of control's pod that leads to it.

The names of the gateway's own pods are known to nobody beforehand, so a role that was to forward to them would have to
be let into every pod of the namespace, and a port-forward ends inside of a pod: at the module's own port, past its
sidecar and all policies. Control's pod has one name, and what a role reaches in it wants a token; so does the gateway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from idi.api.pumping import first_of, pump
from idi.parts.clients.owned_tasks import OwnedTasks

log = logging.getLogger(__name__)

PORT = 8447
MOST = 256
CONNECT_S = 5.0


@dataclass(slots=True)
class GatewayWay:
    host: str
    port: int
    tasks: asyncio.TaskGroup
    open: int = 0

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.tasks.create_task(self._lead(reader, writer))

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            if self.open > MOST:
                return
            async with asyncio.timeout(CONNECT_S):
                far, near = await asyncio.open_connection(self.host, self.port)
            try:
                await first_of(pump(reader, near), pump(far, writer))
            finally:
                near.close()
        except (OSError, TimeoutError) as error:
            log.info("the gateway is not reached at %s: %s", self.host, error)
        except Exception:  # it must not end those beside it
            log.exception("a connection to the gateway failed by a bug")
        finally:
            self.open -= 1
            writer.close()  # which still sends what was written


@asynccontextmanager
async def leading(host: str, port: int, at: int = PORT) -> AsyncIterator[int]:
    """Lead whoever connects to loopback there; at which port (0: a free one)."""
    async with OwnedTasks() as tasks:
        server = await asyncio.start_server(GatewayWay(host, port, tasks).connected, "127.0.0.1", at)
        try:
            yield int(server.sockets[0].getsockname()[1])
        finally:
            server.close()
