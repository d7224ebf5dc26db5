"""A cluster: brought up, asked, taken down.

    with Cluster("mine", ["general", "ml"]) as cluster:
        cluster.client.kubectl("get", "nodes")

Everything runs in groups of its own (group.py): the control plane with the wire between the nodes, and one for each
node. From this machine it is reached through two ports on 127.0.0.1 alone (relay.py). Its faults are in
faults.py.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.cluster import bootstrap, cgroups, control, node
from tests.support.cluster.api import Api
from tests.support.cluster.client import Client
from tests.support.cluster.group import PATH, ClusterError, Group
from tests.support.cluster.images import Image, Registry, image
from tests.support.cluster.layout import (
    API,
    API_PORT,
    MOST_NODES,
    POOLS,
    REGISTRY_PORT,
    SERVICES,
    STORE_PORT,
    Layout,
    Node,
)
from tests.support.cluster.owner import Owned, sweep
from tests.support.cluster.private import write_private
from tests.support.cluster.programs import missing, programs
from tests.support.cluster.relay import Relay

API_S = 60.0
NODES_S = 60.0
STORE_S = 10.0
NEEDS = (
    *("containerd", "runc", "docker-registry", "iptables", "ipset", "conntrack"),
    *("ip", "unshare", "nsenter", "setpriv"),
)
CNI = Path("/usr/lib/cni/bridge")


def lacking() -> list[str]:
    """What this machine has not, without which no cluster can be here."""
    lacks = [] if os.geteuid() == 0 else ["root"]
    lacks += [name for name in NEEDS if not shutil.which(name, path=PATH)]
    lacks += [] if CNI.exists() else ["CNI plugins"]
    lacks += [] if cgroups.there() else ["cgroups of version 1"]
    if not lacks and (unbuilt := missing()) and not shutil.which("go"):
        lacks += [f"go, to build {', '.join(unbuilt)}"]
    return lacks


class Cluster:
    """One that nobody else has; the process that brings it up owns it, and it dies with its owner."""

    def __init__(self, name: str, pools: Sequence[str] = POOLS) -> None:
        if not 1 <= len(pools) <= MOST_NODES:
            raise ValueError(f"1 to {MOST_NODES} nodes")
        self.layout = Layout(name)
        self.client = Client(self.layout.kubeconfig)
        self.nodes = [Node(number, pool) for number, pool in enumerate(pools, 1)]
        self.took: dict[str, float] = {}
        """Seconds from the start to each step."""
        self._began = 0.0
        self._owned: Owned | None = None
        self._relay: Relay | None = None
        self._registry: Registry | None = None
        self.control = Group("control", self.layout.folder / "control")
        self.groups = {one.name: Group(one.name, node.folder(self.layout, one)) for one in self.nodes}
        self.programs: dict[str, Path] = {}
        """By the name that each is called by."""
        self._tool: Image | None = None
        self._pause = ""

    def __enter__(self) -> Cluster:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        return self.layout.kubeconfig

    @property
    def api(self) -> Api:
        return self.client.api

    @property
    def registry(self) -> Registry:
        assert self._registry is not None, "not up"
        return self._registry

    @property
    def tool(self) -> str:
        """The image of the tests' own program (sources/tool), by digest."""
        assert self._tool is not None, "not up"
        return self._tool.reference

    def up(self) -> None:
        """Bring it up until its nodes are Ready and pods can be made; raises `ClusterError`."""
        if lacks := lacking():
            raise ClusterError(f"this machine lacks {', '.join(lacks)}")
        self.programs = programs()
        self._began = time.monotonic()
        sweep()
        self._owned = Owned(self.layout)
        try:
            self._owned.clear()
            self._start()
        except BaseException as error:
            tails = [self.control.tail(), *(group.tail() for group in self.groups.values())]
            self.down()
            if isinstance(error, ClusterError | OSError):
                raise ClusterError("\n".join([str(error), *tails])) from error
            raise

    def down(self) -> None:
        """Take it down, all included; again is nothing."""
        if self._owned is None:
            return
        owned, relay, self._owned, self._relay = self._owned, self._relay, None, None
        try:
            if relay is not None:
                relay.close()
        finally:
            for group in (*self.groups.values(), self.control):
                group.kill()
            try:
                owned.clear()
            finally:
                owned.release()

    def node(self, name: str) -> Node:
        return next(one for one in self.nodes if one.name == name)

    def stored(self, key: str) -> bytes:
        """The raw value under a key of the store, as it lies there."""
        return self._range(key)[key]

    def everything_stored(self) -> dict[str, bytes]:
        """Every raw value of the store by its key."""
        return self._range("\0", "\0")

    def _range(self, first: str, end: str = "") -> dict[str, bytes]:
        asked = {"key": first, **({"range_end": end} if end else {})}
        encoded = {name: base64.b64encode(value.encode()).decode() for name, value in asked.items()}
        with self.control.socket() as inside:
            inside.settimeout(STORE_S)
            inside.connect(("127.0.0.1", STORE_PORT))
            connection = http.client.HTTPConnection("127.0.0.1")
            connection.sock = inside
            connection.request("POST", "/v3/kv/range", json.dumps(encoded))
            found = json.loads(connection.getresponse().read())
        return {
            base64.b64decode(one["key"]).decode(errors="replace"): base64.b64decode(one.get("value", ""))
            for one in found.get("kvs", ())
        }

    def kill_node(self, name: str) -> None:
        """As a power cut does it: every process of the node and its network are gone at once."""
        self.groups[name].kill()
        cgroups.end(self._branch(name))
        self._unwire(self.node(name))

    def start_node(self, name: str) -> None:
        """Start it again with what is on its disk."""
        one = self.node(name)
        self._launch(one)
        self._wire(one)
        self.groups[name].tell("begin")
        self.groups[name].tell("start", "kube-router")

    def _start(self) -> None:
        self.layout.folder.mkdir(parents=True, mode=0o700)
        cgroups.make(self.layout.cgroup)
        pause = image("idi-test/pause", {"pause": self.programs["tool"]}, "/pause")
        self._tool = image("idi-test/tool", {"tool": self.programs["tool"], "volume": "tool"}, "/tool")
        authority = control.certificates(self.layout)
        for one in self.nodes:
            node.certificates(self.layout, authority, one)
        self._pause = pause.reference
        components = cgroups.component(f"{self.layout.cgroup}/control")
        spec = control.spec(self.layout, self.programs, self._tool.reference, components, self.control.logs)
        self.control.launch(spec)
        for one in self.nodes:
            self._launch(one)
        self._wire_control()
        self.control.tell("begin")
        for one in self.nodes:
            self._wire(one)
            self.groups[one.name].tell("begin")
        self._note("started")
        self._relay = Relay()
        port = self._relay.serve(self.control, API, API_PORT)
        write_private(self.kubeconfig, authority.kubeconfig("admin", f"https://127.0.0.1:{port}"))
        self._registry = Registry(self._relay.serve(self.control, API, REGISTRY_PORT))
        self._registry.await_ready()
        for one_image in (pause, self._tool):
            self._registry.push(one_image)
        self._note("images")
        bootstrap.await_roles(self.api, API_S)
        self._note("api")
        for name in control.AFTER_API:
            self.control.tell("start", name)
        bootstrap.install(self.api, self.layout)
        self._await_nodes(self.api)

    def _await_nodes(self, api: Api) -> None:
        placed: set[str] = set()

        def ready(found: list[dict[str, Any]]) -> bool:
            for name in {one["metadata"]["name"] for one in found} - placed:
                bootstrap.place(api, self.node(name))
                self.groups[name].tell("start", "kube-router")
                placed.add(name)
            return set(_ready(found)) == set(self.groups)

        api.until("/api/v1/nodes", ready, NODES_S, "nodes Ready")
        self._note("ready")
        accounts = "/api/v1/namespaces/default/serviceaccounts"
        api.until(
            accounts, bool, NODES_S, "the default service account", fieldSelector="metadata.name=default"
        )
        self._note("usable")

    def _branch(self, name: str) -> str:
        return f"{self.layout.cgroup}/{name}"

    def _launch(self, one: Node) -> None:
        branch = self._branch(one.name)
        cgroups.make(branch)
        components = cgroups.component(f"{branch}/components")
        group = self.groups[one.name]
        group.launch(node.spec(self.layout, one, self.programs, self._pause, branch, components, group.logs))

    def _wire_control(self) -> None:
        self.control.await_up()
        self.control.network(
            "link set lo up",
            "link add br0 type bridge",
            f"addr add {API}/24 dev br0",
            "link set br0 up",
        )

    def _wire(self, one: Node) -> None:
        group = self.groups[one.name]
        group.await_up()
        self.control.network(
            f"link add {one.link} type veth peer name eth0 netns {group.pid}",
            f"link set {one.link} master br0 up",
            f"route replace {one.pods} via {one.address}",
            # No kube-proxy here: the first node's stands in for whoever asks from the control plane.
            *([f"route replace {SERVICES} via {one.address}"] if one is self.nodes[0] else []),
        )
        group.network(*node.routes(one, [other for other in self.nodes if other is not one]))

    def _unwire(self, one: Node) -> None:
        # The kernel removes the pair some time after the node's network; a node that is back can't wait for that.
        self.control.run("ip", "link", "del", one.link, check=False)

    def _note(self, step: str) -> None:
        self.took[step] = round(time.monotonic() - self._began, 2)


def _ready(nodes: list[dict[str, Any]]) -> list[str]:
    return [
        one["metadata"]["name"]
        for one in nodes
        for condition in one["status"].get("conditions", [])
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
