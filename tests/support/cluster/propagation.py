"""Instances that come and go, and when the last Envoy routes rightly: on a real cluster whose nodes are this machine.

Two modules have several instances, which four callers' sidecars and two gateways reach. In each round all instances
live through the same: the process is killed (SIGKILL, out of the blue), and kubelet starts it again, one after the
other; then all pods are deleted, two at a time, and new ones come in their place. (Eight at a time took the processors
from what was measured: of 200 of each p99 was 1.4 s for a new one and 2.1 s for a deleted one.) A process is killed
once only: the second time kubelet would wait ten seconds, then twenty. What is measured of each instance:

- killed: from the signal until no proxy has its endpoint,
- back, new: from when something listens on the module's port (that is when it is ready) until every proxy has it,
- deleted: from before the API server is asked until no proxy has it. A scale-down is that for several at a time.

Beside that: how much later than the last proxy kubelet knows that it is ready. All times are of one clock; they are too
long by up to one turn of looking at the proxies (`proxies.py`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.cluster.client import Client
from tests.support.cluster.environment import Environment
from tests.support.cluster.here import pids
from tests.support.cluster.proxies import Proxies
from tests.support.cluster.seen import Seen

APP_PORT, MESH_PORT = 20001, 20101
CALLED, CALLERS = {"cam": 4, "rame": 4}, {"jede": 2, "pas": 2}
COUNT = sum(CALLED.values())
WITHIN_S = 10.0
"""For a change to reach the proxies; ten times what it may take."""
POD_S = 90.0
AT_ONCE = 2
PAUSE_S = 0.05
"""Between two events."""
MODULE = """\
  {name}:
    image: {image}
    instances: {count}
    calls: [{calls}]
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 10m, memory: 64MiB}}
    routes: [{{path: /open/{name}/, public: true}}]
"""


@dataclass
class Times:
    """In milliseconds, one for each event."""

    killed: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    new: list[float] = field(default_factory=list)
    deleted: list[float] = field(default_factory=list)
    kubelet: list[float] = field(default_factory=list)
    """From the last proxy to when the API server says that the pod is Ready."""
    turn_ms: float = 0.0
    """How often the proxies were looked at: by so much a time may be too long."""


def uids(pods: Collection[dict[str, Any]]) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods}


def endpoint_of(pod: dict[str, Any]) -> str:
    return f"{pod['status']['podIP']}:{MESH_PORT}"


def declare(made: Environment) -> None:
    image, calls = made.images["standin-python"], ", ".join(CALLED)
    modules = [(name, count, "") for name, count in CALLED.items()]
    modules += [(name, count, calls) for name, count in CALLERS.items()]
    made.declare(
        "".join(
            MODULE.format(name=name, image=image, count=count, calls=called)
            for name, count, called in modules
        )
    )


def rounds(made: Environment, count: int) -> Times:
    """So many rounds in an environment that is up."""
    proxies: dict[str, int] = {}
    for selector, container in (
        (f"idi.dev/module in ({','.join(CALLERS)})", "sidecar"),
        ("idi.dev/part=gateway", "gateway"),
    ):
        proxies |= {
            pod["metadata"]["name"]: pids(pod, container)[0]
            for pod in made.pods(selector)
            if "deletionTimestamp" not in pod["metadata"]
        }
    with (
        Proxies(proxies, CALLED, APP_PORT) as watched,
        Seen(made.kube, made.namespace, f"idi.dev/module in ({','.join(CALLED)})") as seen,
    ):
        began = time.monotonic()
        going = Rounds(seen, watched, made.kube, made.namespace)
        for _ in range(count):
            going.one()
        going.times.turn_ms = 1000 * (time.monotonic() - began) / watched.turns
        return going.times


def percentile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * (len(values) - 1)))]


class Rounds:
    def __init__(self, seen: Seen, proxies: Proxies, kube: Client, namespace: str) -> None:
        self.times = Times()
        self._seen = seen
        self._proxies = proxies
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/pods"

    def one(self) -> None:
        """All are killed and come back; all are deleted and others come, some at a time."""
        pods = self._all_there(set())
        for pod in pods:
            self._kill(pod)
            self.times.back.append(self._since_ready(pod))
            time.sleep(PAUSE_S)
        known = uids(pods)
        for at in range(0, COUNT, AT_ONCE):
            going = pods[at : at + AT_ONCE]
            for pod in going:
                self._delete(pod)
                time.sleep(PAUSE_S)
            there = self._all_there(uids(going))
            for pod in there:
                if pod["metadata"]["uid"] not in known:
                    self._came(pod)
            known = uids(there)

    def _came(self, pod: dict[str, Any]) -> None:
        self.times.new.append(self._since_ready(pod))
        told = self._seen.until(partial(self._seen.at, pod["metadata"]["uid"], "ready"), "kubelet to know")
        last = self._proxies.there(endpoint_of(pod), WITHIN_S)
        self.times.kubelet.append(1000 * (told - last))

    def _kill(self, pod: dict[str, Any]) -> None:
        [pid, *_] = pids(pod, "module")
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        self.times.killed.append(1000 * (self._proxies.gone(endpoint_of(pod), began, WITHIN_S) - began))

    def _delete(self, pod: dict[str, Any]) -> None:
        began = time.monotonic()
        self._kube.api.delete(f"{self._path}/{pod['metadata']['name']}")
        self.times.deleted.append(1000 * (self._proxies.gone(endpoint_of(pod), began, WITHIN_S) - began))

    def _since_ready(self, pod: dict[str, Any]) -> float:
        last = self._proxies.there(endpoint_of(pod), POD_S)
        return 1000 * (last - self._proxies.listens(pod["metadata"]["uid"]))

    def _all_there(self, before: set[str]) -> list[dict[str, Any]]:
        """Wait until every instance is another pod than these and is at all proxies."""

        def others() -> list[dict[str, Any]] | None:
            found = [pod for pod in self._seen.pods() if pod["metadata"]["uid"] not in before]
            self._proxies.look_at(uids(found))
            return found if len(found) == COUNT and all(pod["status"].get("podIP") for pod in found) else None

        for pod in self._seen.until(others, "all instances have an address"):
            self._proxies.there(endpoint_of(pod), POD_S)
        # As they are now, with their containers.
        return self._seen.until(
            lambda: found if (found := others()) and all(pids(pod, "module") for pod in found) else None,
            "kubelet to say which containers there are",
        )
