"""A pod without a cluster: a real agent with a real Envoy, and a small door of control's over TLS.

The door only remembers what it was told and answers as a test wants; the agent runs as in a pod, with its files in
a folder of the test's.
"""

import asyncio
import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web

from idi.parts.gateway.envoy.start import gateway_start, sidecar_start
from idi.traffic.types import GATEWAY
from tests.support.envoy import Authority, Mesh, free_port, identity_of, mesh, until

ROOT = Path(__file__).resolve().parents[2]


def children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


@dataclass
class Told:
    """One report, with the moment when it arrived."""

    at: float
    token: str
    ready: bool
    reason: str
    envoy: str


class FakeDoor:
    """Control's side of the two calls."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.port = free_port()
        self.told: list[Told] = []
        self.in_rotation = True
        self.status = 200
        self.stopping: list[float] = []
        self.barrier = asyncio.Event()
        self.barrier.set()
        self.connections = 0
        self._runner: web.AppRunner | None = None
        self.certify(authority, folder)

    def certify(self, authority: Authority, folder: Path) -> None:
        identity = authority.issue("spiffe://test/control", dns="localhost")
        pem = folder / "door.pem"
        pem.write_bytes(identity.chain + identity.key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pem)

    async def open(self) -> None:
        app = web.Application()
        app.router.add_post("/v1/pods/self/report", self._report)
        app.router.add_post("/v1/pods/self/stopping", self._stopping)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "localhost", self.port, ssl_context=self._context).start()

    async def close(self) -> None:
        """As a control that is killed: every connection ends."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            for site in list(runner.sites):
                await site.stop()
            server: Any = runner.server
            for connection in list(server.connections):
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()

    @property
    def last(self) -> Told:
        return self.told[-1]

    async def until(self, timeout_s: float = 10.0, **wanted: object) -> Told:
        """The first report from now on, or the last one, that says so."""
        at = max(0, len(self.told) - 1)

        def found() -> Told | None:
            return next(
                (t for t in self.told[at:] if all(getattr(t, k) == v for k, v in wanted.items())), None
            )

        try:
            await until(found, timeout_s, every_s=0.001)
        except TimeoutError:
            raise AssertionError(f"nobody told {wanted}; last {self.told[-3:]}") from None
        told = found()
        assert told is not None
        return told

    def _who(self, request: web.Request) -> str:
        return request.headers["authorization"].removeprefix("Bearer ")

    async def _report(self, request: web.Request) -> web.Response:
        at = time.monotonic()
        self.told.append(Told(at, self._who(request), **await request.json()))
        return web.json_response({"in_rotation": self.in_rotation}, status=self.status)

    async def _stopping(self, request: web.Request) -> web.Response:
        assert self._who(request)
        assert await request.json() == {}
        self.stopping.append(time.monotonic())
        await self.barrier.wait()
        return web.json_response({})


@dataclass
class Pod:
    """One agent, with what would be in its pod."""

    mesh: Mesh
    door: FakeDoor
    folder: Path
    node: str
    module_port: int = 0
    readiness: dict[str, Any] = field(default_factory=lambda: {"port": "http"})
    drain_s: float = 5.0
    agent: subprocess.Popen[bytes] | None = None
    module: subprocess.Popen[bytes] | None = None
    port: int = field(default_factory=free_port)

    @property
    def token(self) -> Path:
        return self.folder / "token"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "agent.log").read_text(errors="replace")

    def write_bootstrap(self) -> None:
        xds, runtime = self.mesh.xds_socket, self.mesh.runtime
        if self.node == GATEWAY:
            start = gateway_start(f"credential-of-{GATEWAY}", runtime, xds, 1000)
        else:
            start = sidecar_start(self.node, f"credential-of-{self.node}", runtime, xds)
        for name in ("bootstrap.json", "gateway.json"):
            (self.folder / name).write_bytes(next(iter(start.files.values())))

    def write_token(self, value: str) -> None:
        """As the kubelet does: renamed over."""
        new = self.folder / "token.new"
        new.write_text(value + "\n")
        os.replace(new, self.token)

    def write_roots(self, authority: Authority) -> None:
        (self.folder / "ca.crt").write_bytes(authority.roots)

    def start_agent(self, *before: str, **more: str) -> None:
        """`before`: a command that runs it."""
        told = {
            "readiness": self.readiness,
            "ports": {"http": self.module_port},
            "module": "cam",
            "grace_s": 10,
        }
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "src"),
            "POD_NAME": self.node,
            "POD_IP": "127.0.0.1",
            "IDI_AGENT_PORT": str(self.port),
            "IDI_CONTROL": f"https://localhost:{self.door.port}",
            "IDI_DRAIN_S": str(self.drain_s),
            "IDI_PROXY_DIR": str(self.folder),
            "IDI_TOKEN_FILE": str(self.token),
            "IDI_ENVOY": os.environ.get("IDI_ENVOY", ""),
            **({} if self.node == GATEWAY else {"IDI_AGENT": json.dumps(told)}),
            **more,
        }
        with (self.folder / "agent.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [*before, sys.executable, "-m", "idi.agent"],
                env=environment,
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )

    def start_module(self, **more: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PORT": str(self.module_port),
            "IDI_MODULE": "cam",
            **more,
        }
        self.module = subprocess.Popen(
            [sys.executable, "-m", "standins.python"], env=environment, cwd=ROOT, stderr=subprocess.DEVNULL
        )

    def kill_module(self) -> float:
        assert self.module is not None
        at = time.monotonic()
        self.module.kill()
        self.module.wait()
        return at

    def envoy(self) -> int:
        """Its pid: the agent's one child; 0 while there is none."""
        assert self.agent is not None
        return next(iter(children(self.agent.pid)), 0)

    async def ask(self, path: str, timeout_s: float = 20.0) -> tuple[int, str]:
        async with httpx.AsyncClient(timeout=timeout_s) as client:
            answer = await client.get(self.url + path)
        return answer.status_code, answer.text

    async def until_ready(self, timeout_s: float = 15.0) -> None:
        end, said = time.monotonic() + timeout_s, "nothing"
        while time.monotonic() < end:
            with contextlib.suppress(httpx.HTTPError):
                status, said = await self.ask("/ready")
                if status == 200:
                    return
            await asyncio.sleep(0.02)
        raise AssertionError(f"not ready: {said}\n{self.log}")

    async def ended(self, timeout_s: float = 10.0) -> int:
        assert self.agent is not None
        await until(lambda: self.agent is not None and self.agent.poll() is not None, timeout_s)
        return int(self.agent.returncode)

    def clear(self) -> None:
        for process in (self.agent, self.module):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()


@contextlib.asynccontextmanager
async def cam(*, start: bool = True) -> AsyncIterator[Pod]:
    """cam in a pod, and jede as who calls it."""
    async with mesh() as m:
        m.module("cam")
        m.module("jede", calls=["cam"])
        instance = m.instance("cam", free_port())
        m.instance("jede", 1)
        m.publish()
        async with pod(m, "cam-1", instance.app_port) as made:
            if start:
                made.start_agent()
                made.start_module()
                await made.until_ready()
            yield made


@contextlib.asynccontextmanager
async def pod(mesh: Mesh, node: str, module_port: int = 0) -> AsyncIterator[Pod]:
    """A pod with all that it waits for; nothing of it runs yet."""
    folder = mesh.runtime / f"pod-{node}"
    folder.mkdir()
    door = FakeDoor(mesh.authority, folder)
    made = Pod(mesh, door, folder, node, module_port)
    made.write_bootstrap()
    made.write_token("token-1")
    made.write_roots(mesh.authority)
    module = GATEWAY if node == GATEWAY else mesh.instances[node].module
    mesh.plane.set_identity(node, mesh.authority.issue(identity_of(module)))
    await door.open()
    try:
        yield made
    finally:
        made.clear()
        await door.close()
