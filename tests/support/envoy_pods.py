"""Envoys as pods have them: a folder that is the same for all, a token in a file, the plane by name and with TLS.

A folder of its own for each, so that a test can give one another root or another token; files change as Kubernetes
changes them.
"""

import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from idi.agent.token import subscription
from idi.parts.clients import private_file
from idi.parts.gateway.envoy.arguments import TOKEN_FILE, cluster_argv
from idi.parts.gateway.envoy.binary import ENVOY
from idi.parts.gateway.envoy.listening import ServerCertificate, TlsPort
from idi.parts.gateway.envoy.render.cluster_bootstrap import ROOTS_FILE, ClusterXds, roots_subscription
from idi.parts.gateway.envoy.start import ProxyStart, cluster_files
from idi.traffic.types import GATEWAY
from tests.support.envoy import Authority, Mesh, Proxy, free_port, identity_of, mesh

NAME = "localhost"

USER = 64_000 + os.getpid() % 1000 if os.geteuid() == 0 else None
"""Like pods, not root; and of its own, since what the kernel lets one user watch is little (128 by default)."""


def project(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put files into a folder as kubelet does: names are links by way of `..data`, and that link alone is renamed,
    so that all of them change at once. Who watches a file by its name sees nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "..data"
    known = {each.name: each.read_bytes() for each in data.iterdir()} if data.exists() else {}
    content = folder / f"..{time.monotonic_ns()}"
    content.mkdir()
    for name, body in {**known, **files}.items():
        (content / name).write_bytes(body)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    draft = folder / "..data_tmp"
    draft.symlink_to(content.name)
    os.replace(draft, data)


class Pods:
    """`port`: the plane's; `edge` is who made its certificate."""

    def __init__(self, m: Mesh, port: int, edge: Authority) -> None:
        self.m = m
        self.port = port
        self.edge = edge

    def folder(self, node: str) -> Path:
        return self.m.runtime / f"{node}.pod"

    def token(self, node: str, token: str) -> None:
        """As its agent hands it on."""
        run = self.folder(node) / "run"
        run.mkdir(parents=True, exist_ok=True)
        beside = run / "beside"
        private_file.write(beside, subscription(token))
        if USER is not None:
            os.chown(beside, USER, USER)
        os.replace(beside, run / TOKEN_FILE)

    def roots(self, node: str, roots: bytes) -> None:
        project(self.folder(node), {ROOTS_FILE: roots_subscription(roots)})

    def launch(self, node: str, *, claims: str = "", gateway: bool = False, host: str = NAME) -> Proxy:
        """Start it; `claims`: the node that it says it is. The files that a test has put are left as they are."""
        folder = self.folder(node)
        if not (folder / ROOTS_FILE).exists():
            self.roots(node, self.edge.roots)
        if not (folder / "run" / TOKEN_FILE).exists():
            self.token(node, f"credential-of-{node}")
        xds = ClusterXds(host, self.port, str(folder))
        admin = folder / "run" / "admin"
        files = dict(cluster_files(xds, b"", str(admin), gateway_connections=1000))
        del files[ROOTS_FILE]
        argv = cluster_argv(str(ENVOY.find()), str(folder), claims or node, gateway=gateway)
        project(folder, files)
        if USER is not None:
            self.m.runtime.chmod(0o711)
            os.chown(admin.parent, USER, USER)
            # Not by Popen: that would fork, and grpc's threads in this process don't bear it.
            argv = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *argv)
        return self.m.launch(node, ProxyStart(argv))

    async def start(self, node: str, **how: bool) -> Proxy:
        """With its certificate, and ready."""
        module = self.m.instances[node].module if node in self.m.instances else GATEWAY
        self.m.plane.set_identity(node, self.m.authority.issue(identity_of(module)))
        proxy = self.launch(node, gateway=module == GATEWAY)
        await self.m.ready(node)
        return proxy


@asynccontextmanager
async def pods(change: Callable[[Mesh], None] = lambda m: None) -> AsyncIterator[tuple[Mesh, Pods]]:
    async with mesh() as m:
        await m.close_plane()
        edge = Authority("edge")
        made = edge.issue("spiffe://edge/xds", dns=NAME)
        port = free_port()
        m.where = TlsPort("127.0.0.1", port, ServerCertificate(made.chain, made.key))
        change(m)
        await m.open_plane()
        yield m, Pods(m, port, edge)
