"""The way from this machine to a control inside a cluster: the same socket as on a laptop, led on.

A process of its own holds a port-forward and a fresh token of a role, listens where a laptop's control would (0600 in
the private runtime folder), and hands each request on with the token in it. So every command works there as on a
laptop, and the second one is as quick: only the first pays for kubectl. It ends by itself after a while of silence.

The token goes into the request's head and nowhere else. What the client says of who it is is taken out.

A connection ends with whichever of its two sides ends first, and each is a task of the bridge's own: a task that only
its transports know is forgotten by everybody once its client has closed (Python's loop keeps tasks weakly), and would
be collected in the middle of what it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from idi.api.cluster import Cluster
from idi.api.paths import Paths, make_private, paths_for
from idi.api.problem import MEDIA_TYPE, problem
from idi.api.pumping import first_of, pump
from idi.api.roles import highest
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import IdiError

log = logging.getLogger(__name__)

CONTROL, PORT = "pod/control-0", 8446
GATEWAY_PORT = 8447
"""In control's pod: the gateway's own pods have no names that a role could be bound to."""
HEAD_BYTES = 64 * 1024
HEAD_S = 10.0
CONNECTIONS = 64
SILENCE_S = 900.0
TOKEN_S = 300.0
"""A token lives for ten minutes; half of that is left whenever one is used."""
LOOK_S = 5.0
GATEWAY_S = 3.0
MEND_S = 8.0
MEND_LOOK_S = 0.1
DROPPED = (b"authorization:", b"x-idi-gateway-url:", b"connection:")


def address(paths: Paths) -> Path:
    """What an environment on a cluster is reached by, beside its state."""
    return paths.state / "cluster.json"


@dataclass(frozen=True, slots=True)
class Way:
    """Which cluster, which namespace."""

    context: str
    namespace: str

    def write(self, paths: Paths) -> None:
        for folder in (paths.state.parent, paths.state):
            make_private(folder)
        document = {"context": self.context, "namespace": self.namespace}
        address(paths).write_text(json.dumps(document), encoding="utf-8")

    @staticmethod
    def read(paths: Paths) -> Way | None:
        try:
            document = json.loads(address(paths).read_text(encoding="utf-8"))
            return Way(document["context"], document["namespace"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


class Forwarding(Protocol):
    """Of a forward what is needed to use it: its local port, and why it does not lead there just now."""

    @property
    def port(self) -> int: ...

    @property
    def trouble(self) -> IdiError | None: ...


class Tokens(Protocol):
    def token(self, role: str) -> str: ...


@dataclass(slots=True)
class Bridge:
    """`tasks` is where connections run, `gateway` the forward to the gateway, whose local port commands call it by;
    None until there is one."""

    cluster: Tokens
    role: str
    control: Forwarding
    tasks: asyncio.TaskGroup
    gateway: Forwarding | None = None
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    used: float = field(default_factory=time.monotonic)
    open: int = 0
    _token: str = field(default="", repr=False)
    _since: float = 0.0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Somebody has connected."""
        self.tasks.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: one request, and whatever is answered until either side ends it."""
        self.open += 1
        try:
            await self._exchange(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except IdiError as error:
            writer.write(refusal(503, error.message, error.way_out))
        except Exception:  # it must not end those beside it
            log.exception("a connection failed by a bug")
        finally:
            self.open -= 1
            self.used = time.monotonic()
            writer.close()  # which still sends what was written

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        if self.open > CONNECTIONS:
            raise IdiError(
                f"{CONNECTIONS} requests are under way already.", "Try again when some have ended."
            )
        token = await self.fresh()
        far, near = await self._control()
        near.write(with_identity(head, token, self.gateway.port if self.gateway else 0))
        try:
            await first_of(pump(reader, near), pump(far, writer))
        finally:
            near.close()

    async def _control(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to control; while the way there is being mended it is waited for."""
        deadline = time.monotonic() + MEND_S
        while True:
            trouble = self.control.trouble
            try:
                if trouble is None:
                    return await asyncio.open_connection("127.0.0.1", self.control.port, limit=HEAD_BYTES)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise self.control.trouble or error from None
            if trouble is not None and time.monotonic() > deadline:
                raise trouble
            await asyncio.sleep(MEND_LOOK_S)

    async def fresh(self) -> str:
        """A token with enough of its life left."""
        async with self._one:
            if not self._token or time.monotonic() - self._since > TOKEN_S:
                self._token = await asyncio.to_thread(self.cluster.token, self.role)
                self._since = time.monotonic()
            return self._token


def with_identity(head: bytes, token: str, gateway_port: int) -> bytes:
    """The request's head with who asks in it, and by which address the gateway is reached from here."""
    first, *rest = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [line for line in rest if not line.lower().startswith(DROPPED)]
    kept += [b"authorization: Bearer " + token.encode(), b"connection: close"]
    if gateway_port:
        kept.append(f"x-idi-gateway-url: http://127.0.0.1:{gateway_port}".encode())
    return b"\r\n".join([first, *kept]) + b"\r\n\r\n"


def refusal(status: int, detail: str, way_out: str = "") -> bytes:
    title = "Not reachable"
    body = json.dumps(problem(status, title, detail, way_out)).encode()
    head = f"HTTP/1.1 {status} {title}\r\ncontent-type: {MEDIA_TYPE}\r\n"
    return f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body


async def reach_gateway(bridge: Bridge, cluster: Cluster) -> None:
    """Hold a forward to the gateway, once it is there, until cancelled."""
    said = ""
    while True:
        try:
            async with cluster.forward(CONTROL, GATEWAY_PORT) as forward:
                bridge.gateway = forward
                bridge.reached.set()
                await asyncio.Event().wait()
        except IdiError as error:
            if str(error) != said:
                said = str(error)
                log.warning("the gateway is not reached yet: %s", error)
        await asyncio.sleep(LOOK_S)


async def run(paths: Paths, way: Way, role: str) -> None:
    """Serve until it was silent for a while, or a signal. Without a role in the highest that the user has."""
    cluster = Cluster(way.context, way.namespace)
    role = role or await asyncio.to_thread(highest, cluster)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with cluster.forward(CONTROL, PORT) as control, OwnedTasks() as tasks:
        bridge = Bridge(cluster, role, control, tasks)
        await bridge.fresh()  # who may not is told before anybody waits
        tasks.create_task(reach_gateway(bridge, cluster))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATEWAY_S):  # where it runs already, the first command may want it
                await bridge.reached.wait()
        async with listening(bridge, paths.socket):
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await ended.wait()
                if not bridge.open and time.monotonic() - bridge.used > SILENCE_S:
                    break
                if not paths.socket.exists():
                    break  # the runtime folder vanished; the next command makes another


@asynccontextmanager
async def listening(bridge: Bridge, socket: Path) -> AsyncIterator[None]:
    """Take connections at this socket, 0600 from its first moment."""
    remove = partial(socket.unlink, missing_ok=True)
    remove()
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(bridge.connected, socket, limit=HEAD_BYTES)
    finally:
        os.umask(before)
    try:
        yield
    finally:
        server.close()
        remove()


def main() -> int:
    """`python -m idi.api.bridge FILE ENVIRONMENT [ROLE]`: the way lies beside the state."""
    file, environment, role = (*sys.argv[1:], "")[:3]
    paths = paths_for(file, environment, role)
    way = Way.read(paths)
    if way is None:
        return 1
    try:
        make_private(paths.runtime)
        asyncio.run(run(paths, way, role))
    except IdiError as error:
        paths.start_error.write_text(
            json.dumps({"message": error.message, "way_out": error.way_out, "exit": 3}), encoding="utf-8"
        )
        return 3
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s bridge: %(message)s")
    sys.exit(main())
