"""Control's end of the plane, replicas as processes of their own, and proxies that find them by one service."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idi.parts.gateway.envoy.listening import ServerCertificate, TlsPort
from idi.parts.gateway.envoy.replicas.plane import ReplicatedPlane
from tests.support.envoy import Authority, Mesh, free_port, identity_of, mesh, until
from tests.support.envoy_pods import NAME, Pods, project
from tests.support.xds_judge import judge
from tests.support.xds_service import Service, service


@dataclass
class Replica:
    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Platform:
    def __init__(self, m: Mesh, pods: Pods, service: Service, environment: dict[str, str]) -> None:
        self.m = m
        self.pods = pods
        self.service = service
        self.control_port = free_port()
        self.replicas: dict[str, Replica] = {}
        self.plane: ReplicatedPlane
        self.identities: dict[str, Any] = {}
        self._environment = environment
        self._open = False
        self.snapshot: Path | None = None

    # --- control -----------------------------------------------------------------------------------

    async def open_control(self) -> None:
        made = self.pods.edge.issue("spiffe://edge/control", dns=NAME)
        where = TlsPort("127.0.0.1", self.control_port, ServerCertificate(made.chain, made.key))
        self.plane = ReplicatedPlane(
            where,
            Mesh.verify,
            self.verify_replica,
            self.snapshot,
            lambda *event: self.m.events.append(event),
        )
        xds = self.pods.edge.issue("spiffe://edge/xds", dns=NAME)
        self.plane.set_certificate(xds.chain, xds.key)
        # What tests of one plane use works on this one as well.
        self.m.plane = self.plane  # type: ignore[assignment]
        await self.plane.__aenter__()
        self._open = True

    async def close_control(self) -> None:
        if self._open:
            self._open = False
            await self.plane.__aexit__(None, None, None)

    @staticmethod
    async def verify_replica(token: str) -> str | None:
        pod = await Mesh.verify(token)
        return pod if pod is not None and pod.startswith("xds-") else None

    # --- replicas ----------------------------------------------------------------------------------

    async def replica(self, name: str, *, ready: bool = True, token: str = "") -> Replica:
        """Start one; its port is behind the service from the first."""
        folder = self.m.runtime / name
        project(folder / "proxy", {"ca.crt": self.pods.edge.roots})
        project(folder / "token", {"token": (token or f"credential-of-{name}").encode()})
        port = free_port()
        environment = {
            **os.environ,
            **self._environment,
            "IDI_CONTROL": f"https://{NAME}:8443",
            "IDI_CONTROL_XDS_PORT": str(self.control_port),
            "IDI_PROXY_DIR": str(folder / "proxy"),
            "IDI_TOKEN_FILE": str(folder / "token" / "token"),
            "IDI_XDS_PORT": str(port),
        }
        made = self.replicas[name] = launch(name, port, environment, self.m.runtime / f"{name}.log")
        self.service.backends.append(port)
        if ready:
            await self.serving(name)
        return made

    async def serving(self, *names: str) -> None:
        try:
            for name in names:
                replica = self.replicas[name]
                await until(lambda replica=replica: "serving" in replica.log.read_text(), 15)  # type: ignore[misc]
                await until(lambda name=name: self.plane.replicas().get(name), 15)  # type: ignore[misc]
        except TimeoutError:
            raise AssertionError(
                "\n".join(f"--- {name}\n{self.replicas[name].log.read_text()[-2000:]}" for name in names)
                + str(self.plane.replicas())
            ) from None

    # --- proxies -----------------------------------------------------------------------------------

    async def proxy(self, node: str, at: str = "") -> None:
        """Start it, at this replica if one is named."""
        backends = self.service.backends
        if at:
            self.service.backends = [self.replicas[at].port]
        module = self.m.instances[node].module
        self.identities[node] = self.m.authority.issue(identity_of(module))
        self.plane.set_identity(node, self.identities[node])
        self.pods.launch(node)
        await self.m.ready(node)
        self.service.backends = backends

    def say_again(self) -> None:
        """What a control that started again says."""
        self.m.publish()
        for node, identity in self.identities.items():
            self.plane.set_identity(node, identity)

    def stop(self) -> None:
        for replica in self.replicas.values():
            replica.kill()


def launch(name: str, port: int, environment: dict[str, str], log: Path) -> Replica:
    with log.open("ab") as out:
        process = subprocess.Popen(
            (sys.executable, "-m", "tests.support.xds_child"),
            env=environment,
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
    return Replica(name, port, process, log)


@asynccontextmanager
async def replicated() -> AsyncIterator[Platform]:
    async with mesh() as m, service() as balanced, judge(m.runtime / "account") as environment:
        await m.close_plane()
        pods = Pods(m, balanced.port, Authority("edge"))
        made = Platform(m, pods, balanced, {**environment, "TEST_ACCOUNT": str(m.runtime / "account")})
        try:
            await made.open_control()
            yield made
        finally:
            made.stop()
            await made.close_control()
