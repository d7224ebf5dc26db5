"""What tests of a cluster put into it: pods of the tests' own program, in a namespace that goes again."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.support.cluster.client import Client
from tests.support.cluster.layout import POOL

PORT = 8080
POD_S = 40.0
LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""What a container of the platform gets too."""


def container(name: str, image: str, *words: str, **more: Any) -> dict[str, Any]:
    """One that runs the tests' program."""
    return {"name": name, "image": image, "args": list(words), "securityContext": LOCKED, **more}


def on(pool: str) -> dict[str, Any]:
    """The part of a pod's specification that puts it on a pool."""
    toleration = {"key": POOL, "operator": "Equal", "value": pool, "effect": "NoSchedule"}
    return {"nodeSelector": {POOL: pool}, "tolerations": [toleration]}


def running(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The pod, if it is Ready."""
    for pod in pods:
        for condition in pod["status"].get("conditions", ()):
            if condition["type"] == "Ready" and condition["status"] == "True":
                return pod
    return None


def ended(pods: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((pod for pod in pods if pod["status"]["phase"] in ("Succeeded", "Failed")), None)


@dataclass(frozen=True)
class Namespace:
    kube: Client
    tool: str
    name: str

    @classmethod
    def made(cls, kube: Client, tool: str, title: str) -> Namespace:
        short = re.sub("[^a-z0-9]+", "-", title.removeprefix("test_").lower())[:40].strip("-")
        made = cls(kube, tool, f"{short}-{uuid4().hex[:6]}")
        kube.api.create("/api/v1/namespaces", {"metadata": {"name": made.name}})
        accounts = made.path("serviceaccounts")
        # Without it no pod is admitted.
        kube.api.until(accounts, bool, POD_S, "the service account", fieldSelector="metadata.name=default")
        return made

    def remove(self) -> None:
        """Asked for, not waited for: nothing else uses it."""
        self.kube.api.delete(f"/api/v1/namespaces/{self.name}")

    def path(self, kind: str, group: str = "") -> str:
        root = f"/apis/{group}" if group else "/api/v1"
        return f"{root}/namespaces/{self.name}/{kind}"

    def pod(
        self, name: str, *words: str, labels: Mapping[str, str] | None = None, **spec: Any
    ) -> Mapping[str, Any]:
        """Create a pod with one container that runs the tests' program with these words."""
        given = {
            "containers": [container("main", self.tool, *words)],
            # The last of three signals that it would wait for otherwise.
            "terminationGracePeriodSeconds": 2,
            **spec,
        }
        metadata = {"name": name, "labels": {"name": name, **(labels or {})}}
        return self.kube.api.create(self.path("pods"), {"metadata": metadata, "spec": given})

    def await_running(self, name: str, timeout_s: float = POD_S) -> Mapping[str, Any]:
        return self._pod(name, running, timeout_s)

    def await_ended(self, name: str, timeout_s: float = POD_S) -> Mapping[str, Any]:
        return self._pod(name, ended, timeout_s)

    def await_gone(self, name: str, timeout_s: float = POD_S) -> None:
        selector = f"metadata.name={name}"
        self.kube.api.until(
            self.path("pods"), lambda pods: not pods, timeout_s, f"{name} gone", fieldSelector=selector
        )

    def run(self, pod: str, *words: str) -> str:
        """What the tests' program says in a running pod; raises `ClusterError` if it fails."""
        return self.kube.kubectl("-n", self.name, "exec", pod, "--", "/tool", *words).strip()

    def log(self, pod: str, name: str) -> dict[str, str]:
        """The lines of a container by what they say, each with the time at which it was said."""
        said = self.kube.kubectl("-n", self.name, "logs", pod, "-c", name, "--timestamps")
        lines = [line.split() for line in said.splitlines() if line]
        return {words[-1]: words[0] for words in lines}

    def service(self, name: str) -> str:
        """A service for the pod of this name; its address."""
        spec = {"selector": {"name": name}, "ports": [{"port": 80, "targetPort": PORT}]}
        made = self.kube.api.create(self.path("services"), {"metadata": {"name": name}, "spec": spec})
        return str(made["spec"]["clusterIP"])

    def _pod(self, name: str, found: Any, timeout_s: float) -> Mapping[str, Any]:
        selector = f"metadata.name={name}"
        pod: Mapping[str, Any] = self.kube.api.until(
            self.path("pods"), found, timeout_s, f"pod {name}", fieldSelector=selector
        )
        return pod


@contextmanager
def replicas_wanted(kube: Client, namespace: str, deployment: str) -> Iterator[list[int]]:
    """Every number of pods that was asked for of a Deployment meanwhile, also if only for a moment."""
    wanted: list[int] = []
    form = r"jsonpath={.spec.replicas}{'\n'}"
    words = ("-n", namespace, "get", "deployment", deployment, "--watch", "-o", form)
    with subprocess.Popen(kube.command(*words), stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        wanted.append(int(watch.stdout.readline()))
        try:
            yield wanted
        finally:
            time.sleep(1)  # the last of it is on its way
            watch.terminate()
            wanted += [int(line) for line in watch.stdout]
