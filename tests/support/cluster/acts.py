"""What an act of failure needs: an environment spread over all nodes, a load with its history, who is where."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from idi.parts.targets.kubernetes.pods import MODULE, REVISION
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import Environment
from tests.support.cluster.layout import POOL, POOLS, Node
from tests.support.history import Request, Verdict, Window, judge

BACK_S = 180.0
PATH = "/open/jede/call/cam/echo"
"""Two hops through the mesh behind the gateway, and no token."""
DECLARED = """\
  jede:
    image: {image}
    instances: 3
    calls: [cam]
    config: {{STANDIN_LOG: requests}}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
    routes: [{{path: /open/jede/, public: true}}]
  cam:
    image: {image}
    instances: 3
    config: {{STANDIN_LOG: requests}}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
"""
WANTED = {"jede": 3, "cam": 3}
PARTS = {"gateway": 2, "xds": 2}
LIMITS = """\
gateway:
  address_limit: {requests: 100000, every: 1s, burst: 100000, anonymous: {requests: 100000, burst: 100000}}"""


@contextmanager
def one_pool(cluster: Cluster) -> Iterator[None]:
    """The nodes of an act are of the pool general, and none keeps anybody off but the others, which are of none."""
    kubectl, acting = cluster.client.kubectl, acting_of(cluster)
    aside = [one.name for one in cluster.nodes if one not in acting]
    others = [one for one in acting if one.pool != "general"]
    names = [one.name for one in others]
    kubectl("taint", "nodes", *aside, f"{POOL}=aside:NoSchedule")
    kubectl("label", "nodes", *aside, f"{POOL}=aside", "--overwrite")
    kubectl("taint", "nodes", *names, f"{POOL}-")
    kubectl("label", "nodes", *names, f"{POOL}=general", "--overwrite")
    try:
        yield
    finally:
        for one in others:
            kubectl("label", "nodes", one.name, f"{POOL}={one.pool}", "--overwrite")
            kubectl("taint", "nodes", one.name, f"{POOL}={one.pool}:NoSchedule", "--overwrite")
        kubectl("label", "nodes", *aside, f"{POOL}=general", "--overwrite")
        kubectl("taint", "nodes", *aside, f"{POOL}-")


def acting_of(cluster: Cluster) -> list[Node]:
    """As many as there are instances of each module."""
    return cluster.nodes[: len(POOLS)]


@dataclass
class Stage:
    """The environment on its cluster."""

    environment: Environment
    cluster: Cluster

    @property
    def nodes(self) -> list[Node]:
        return acting_of(self.cluster)

    def pods(self, selector: str = "") -> list[dict[str, Any]]:
        """Those that are not on their way out."""
        found = self.environment.pods(selector)
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def modules_on(self, node: str) -> list[str]:
        return [one["metadata"]["name"] for one in self.pods("idi.dev/module") if node_of(one) == node]

    def nodes_of(self, part: str) -> dict[str, str]:
        """Pod of a part -> its node."""
        return {one["metadata"]["name"]: node_of(one) for one in self.pods(f"idi.dev/part={part}")}

    def control_node(self) -> str:
        return self.nodes_of("control")["control-0"]

    def away_from_control(self) -> list[str]:
        """Nodes without control, the first one last."""
        return [one.name for one in reversed(self.nodes) if one.name != self.control_node()]

    def fullest(self) -> str:
        """The node without control that has most instances; of the first node others of the session have everything."""
        return max(self.away_from_control(), key=lambda node: len(self.modules_on(node)))

    def addresses(self, part: str) -> dict[str, str]:
        """Node -> address of a pod of a part there."""
        return {node_of(one): one["status"]["podIP"] for one in self.pods(f"idi.dev/part={part}")}

    def all_there(self) -> bool:
        """Everything runs and is ready, as Kubernetes and as control say."""
        ready = {part: sum(map(is_ready, self.pods(f"idi.dev/part={part}"))) for part in PARTS}
        if ready != PARTS or any(
            "deletionTimestamp" in p["metadata"] for p in self.environment.pods("idi.dev/module")
        ):
            return False
        said = self.environment.idi("status", "--json")
        return said.code == 0 and {m["name"]: m["ready"] for m in said.document["modules"]} == WANTED

    def back(self) -> float:
        """Wait until everything is as it was; how long that took."""
        began = time.monotonic()
        self.environment.until(self.all_there, BACK_S, "everything to be back")
        return time.monotonic() - began

    def spread(self) -> None:
        """An instance of each module on each node again: what was evicted is elsewhere, and stays there by itself."""
        if any(not self.modules_on(one.name) for one in self.nodes):
            self.environment.done("restart", "jede", "cam")
            self.environment.kubectl("rollout", "restart", "deployment/gateway", "deployment/xds")
            for part in PARTS:
                self.environment.kubectl(
                    "rollout", "status", f"deployment/{part}", "--timeout=90s", timeout_s=100
                )
            self.back()

    def instances(self) -> dict[str, tuple[str, str]]:
        """State of each, and since when, as control says."""
        modules = self.environment.done("status", "--json").document["modules"]
        return {one["id"]: (one["state"], one["since"]) for m in modules for one in m["instances"]}

    def revisions(self) -> dict[str, set[str]]:
        """Of the pods of each module that are not on their way out."""
        found: dict[str, set[str]] = {name: set() for name in WANTED}
        for pod in self.pods("idi.dev/module"):
            labels = pod["metadata"]["labels"]
            found[labels[MODULE]].add(labels[REVISION])
        return found

    def pushed_from(self, before: Mapping[str, set[str]]) -> bool:
        """Whether every module is of one revision, and of none that it was of."""
        now = self.revisions()
        return all(len(now[name]) == 1 and not now[name] & before[name] for name in WANTED)

    def releases(self) -> dict[str, list[tuple[int, str]]]:
        """Helm's revisions of each module and how each stands, oldest first."""
        found: dict[str, list[tuple[int, str]]] = {name: [] for name in WANTED}
        secrets = f"/api/v1/namespaces/{self.environment.namespace}/secrets?labelSelector=owner%3Dhelm"
        for one in self.cluster.api.get(secrets)["items"]:
            labels = one["metadata"]["labels"]
            if labels["name"] in found:
                found[labels["name"]].append((int(labels["version"]), labels["status"]))
        return {name: sorted(those) for name, those in found.items()}

    def until_out(self, names: Iterable[str], timeout_s: float) -> float:
        """The time at which control says of none of them any more that it is ready."""
        found: dict[str, tuple[str, str]] = {}

        def out() -> bool:
            found.update(dict.fromkeys(names, ("", "")))
            found.update(self.instances())
            return all(found[name][0] != "ready" for name in names)

        self.environment.until(out, timeout_s, f"control to take {', '.join(names)} out")
        return time.time()

    def until_unserved(self, node: str, timeout_s: float) -> float:
        """The time at which the gateway's Service sends to no pod of that node any more."""
        words = ("get", "endpointslices", "-l", "kubernetes.io/service-name=gateway", "-o", "json")

        def served() -> set[str]:
            slices = json.loads(self.environment.kubectl(*words))["items"]
            every = [one for each in slices for one in each.get("endpoints") or ()]
            return {one["nodeName"] for one in every if one["conditions"].get("ready") is not False}

        self.environment.until(lambda: node not in served(), timeout_s, f"the Service to leave {node} out")
        return time.time()

    def delete_at_once(self, part: str) -> None:
        """One pod of it, with nobody asked."""
        self.environment.kubectl(
            "delete", "pod", next(iter(self.nodes_of(part))), "--force", "--grace-period=0"
        )

    def kill_process(self, part: str) -> None:
        """What runs in one pod of it is killed; kubelet starts it again in the same pod."""
        pod, node = next(iter(self.nodes_of(part).items()))
        group = self.cluster.groups[node]
        script = (
            f"for p in /proc/[0-9]*; do if grep -qzx POD_NAME={pod} $p/environ 2>/dev/null; "
            "then kill -9 ${p#/proc/} && echo ${p#/proc/}; fi; done"
        )
        assert group.run("sh", "-c", script).strip(), f"no process of {pod} on {node}"

    @contextmanager
    def load(self, name: str, seconds: float = 900.0, **options: Any) -> Iterator[Act]:
        """A load on the first node's side of everything until the end of the block; its history is there after it."""
        act = Act(self.environment, name, since=time.time())
        self.environment.load(name, PATH, seconds, **{"nodeName": self.nodes[0].name, **options})
        time.sleep(1.0)  # all clients are at work
        try:
            yield act
        finally:
            act.history = self.environment.history(name, stop=True)


@dataclass
class Act:
    """`since`: when it began, by the wall clock."""

    environment: Environment
    name: str
    since: float
    history: list[Request] = field(default_factory=list)
    beside: list[tuple[str, str]] = field(default_factory=list)
    """What instances say that they worked on."""

    def verdict(
        self,
        permitted: Iterable[Window] = (),
        gone: Mapping[str, float] = {},
        *,
        worked: bool = True,
    ) -> Verdict:
        """`worked`: also lay beside it what instances that are there say that they worked on."""
        if worked:
            self.beside = self.worked()
            assert self.beside, "instances wrote of no request"
        verdict = judge(self.history, permitted, gone, self.beside)
        print(f"figure: {self.name}: {verdict}", *verdict.faults, sep="\n  ")
        return verdict

    def worked(self) -> list[tuple[str, str]]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since))
        said = self.environment.kubectl(
            *("logs", "-l", "idi.dev/module", "-c", "module", "--tail=-1", f"--since-time={stamp}"),
            "--max-log-requests=20",
        )
        return worked_on(said)


class Push:
    """`idi restart` of every module, watched item by item; what becomes of the command is of no concern."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        words = stage.environment.command("restart", *WANTED, "--json", "--env", stage.environment.env)
        self._command = subprocess.Popen(
            **words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Push:
        return self

    def __exit__(self, *_: object) -> None:
        self._command.kill()
        self._command.communicate()

    def until_said(self, items: int) -> None:
        """Until so much was said of it; a push that is done says no more."""
        assert self._command.stdout is not None
        for _ in range(items):
            line = self._command.stdout.readline()
            assert line, "the push ended before it was cut off"
            if '"done"' in line and '"ok"' in line:
                return

    def until_pending(self, timeout_s: float = 60.0) -> None:
        """Until Helm has noted that it is at work on a release."""
        deadline = time.monotonic() + timeout_s
        while not any(those[-1][1].startswith("pending") for those in self._stage.releases().values()):
            assert time.monotonic() < deadline, "Helm was never seen at work"


@contextmanager
def followed(environment: Environment, pods: Iterable[str], folder: Path) -> Iterator[Callable[[], str]]:
    """What the modules of these pods print until they are gone, which nobody could read later."""
    files = {pod: Path(folder, pod) for pod in pods}
    children = []
    try:
        for pod, file in files.items():
            words = environment.kube.command(
                "-n", environment.namespace, "logs", "--follow", "--tail=0", pod, "-c", "module"
            )
            with file.open("wb") as out:
                children.append(subprocess.Popen(words, stdout=out, stderr=subprocess.DEVNULL))
        yield lambda: "".join(file.read_text() for file in files.values())
    finally:
        for child in children:
            child.terminate()
            child.wait(10)


def worked_on(said: str) -> list[tuple[str, str]]:
    """(instance, name of the request) of each line about a request that a load sent."""
    found = []
    for line in said.splitlines():
        if '"msg":"request"' in line and "/echo/" in line:
            one = json.loads(line)
            found.append((one["instance"], one["path"].rpartition("/")[2]))
    return found


def node_of(pod: Mapping[str, Any]) -> str:
    return str(pod["spec"].get("nodeName", ""))


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
