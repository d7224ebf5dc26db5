"""Trying it: two pods in a namespace of their own, and whether a network policy parts them.

Nothing that a cluster tells says whether its policies are enforced: without a network plugin that does it they are
taken and mean nothing. So one pod listens, another connects to it until it gets there, then a policy lets nobody in,
and the second one says whether it still gets there. The same two pods show that nodes can pull the sidecar's image
and that pods like the platform's are admitted; a privileged one that is only asked about shows that pod security is
enforced.

The namespace goes in any case, and with it all that is in it. Should this process be killed in between, the pods end
by themselves, and the next one removes what it finds of an age that no trial reaches.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from idi.api.cluster import Cluster
from idi.api.finding import Finding
from idi.api.kubectl import Denied, Failed, Unreachable
from idi.parts.errors import IdiError

LABEL = "idi.dev/doctor"
TRIAL_S = 60.0
"""For all but the removal."""
LEFT = timedelta(minutes=10)
LOOK_S = 0.4
PORT = 8080
POD_S = 90

SERVER = f"""
import socket
listening = socket.create_server(("", {PORT}))
while True:
    listening.accept()[0].close()
"""
CLIENT = f"""
import socket, sys, time
def reached():
    try:
        socket.create_connection((sys.argv[1], {PORT}), 1).close()
        return True
    except OSError:
        return False
end = time.monotonic() + {TRIAL_S}
while not reached():
    if time.monotonic() > end:
        sys.exit("unreached")
    time.sleep(0.2)
print("reached", flush=True)
missed = 0
while missed < 3 and time.monotonic() < end:
    missed = 0 if reached() else missed + 1
    time.sleep(0.2)
print("parted" if missed >= 3 else "open", flush=True)
"""
HOLD_S = 12.0
"""A policy that is in effect at all is so after a second or two."""

SECURE = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
WAITING = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})


class NotTried(Exception):
    """What kept the trial from an answer; `remedy` where there is one."""

    def __init__(self, why: str, remedy: str = "") -> None:
        super().__init__(why)
        self.why, self.remedy = why, remedy


@dataclass
class Trial:
    """`stop` ends it early; `until` is when it has to be over, but for the removal (as `time.monotonic`)."""

    context: str
    kubectl: str
    image: str
    until: float
    stop: threading.Event
    name: str = field(default_factory=lambda: f"idi-doctor-{secrets.token_hex(4)}")

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.context, self.name, self.kubectl)

    def findings(self) -> Iterator[Finding]:
        """What came out of it, in three findings or fewer; never raises `IdiError`."""
        try:
            self._kept_from_it()
        except NotTried as reason:
            said = f"not tried whether network policies hold: {reason.why}"
            yield Finding("network", "warn", said, reason.remedy)
            return
        try:
            yield from self._tried()
        except NotTried as reason:
            said = f"not tried whether network policies hold: {reason.why}"
            yield Finding("network", "warn", said, reason.remedy)
        except IdiError as error:
            yield Finding(
                "network",
                "warn",
                f"not tried whether network policies hold: {error.message}",
                error.way_out,
            )
        finally:
            left = self._remove()
        if left:
            yield left

    def _kept_from_it(self) -> None:
        """Raises `NotTried`; nothing was made until then."""
        if not self.image:
            raise NotTried(
                "the environment names no image of the sidecar, which the two pods would run",
                "Name it under target.kubernetes.images.",
            )
        try:
            answers = self.cluster.may(
                [
                    {"verb": "create", "group": "", "resource": "namespaces"},
                    {"verb": "delete", "group": "", "resource": "namespaces", "name": self.name},
                    {"verb": "create", "group": "", "resource": "pods", "namespace": self.name},
                ]
            )
        except IdiError as error:
            raise NotTried(error.message, error.way_out) from None
        if not all(answers):
            raise NotTried(
                "you may not make and remove a namespace for it", "Have somebody run idi doctor who may."
            )

    def _tried(self) -> Iterator[Finding]:
        self._sweep()
        cluster = self.cluster
        cluster.apply(namespace(self.name))
        try:
            made = cluster.apply({"apiVersion": "v1", "kind": "List", "items": self._served()})
            address = next(one["spec"]["clusterIP"] for one in made["items"] if one["kind"] == "Service")
            cluster.apply(pod("client", self.image, CLIENT, address))
        except (Denied, Failed) as error:
            remedy = "Let the environment's namespace have pods of the restricted profile of pod security."
            yield Finding("security", "fail", f"pods like the platform's: {error.message}", remedy)
            raise NotTried("its pods are not admitted") from None
        yield self._security()
        self._started()
        yield Finding("image", "ok", "nodes pull and run the sidecar's image")
        self._said("reached", self.until, "the one pod does not get to the other, without any policy")
        cluster.apply(policy())
        yield self._judged(self._said("parted", min(self.until, time.monotonic() + HOLD_S), ""))

    def _served(self) -> list[Mapping[str, Any]]:
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "doctor"}}
        spec = {"selector": {LABEL: "server"}, "ports": [{"port": PORT, "protocol": "TCP"}]}
        service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server"}, "spec": spec}
        # In this order: a pod is only admitted once its account is there.
        return [account, service, pod("server", self.image, SERVER)]

    def _security(self) -> Finding:
        wrong = pod("privileged", self.image, SERVER)
        wrong["spec"]["containers"][0]["securityContext"] = {"privileged": True}
        try:
            self.cluster.apply(wrong, dry_run=True)
        except Denied:
            return Finding("security", "ok", "pods like the platform's are admitted, a privileged one is not")
        except Failed:
            return Finding("security", "ok", "pods like the platform's are admitted")
        return Finding(
            "security",
            "warn",
            "a privileged pod would be admitted where the namespace forbids it: pod security is not enforced",
            "Have the admission plugin PodSecurity switched on in the API server.",
        )

    def _started(self) -> None:
        """Until both run; says what keeps them from it."""
        while True:
            pods = (self.cluster.get("pods") or {}).get("items", [])
            if len(pods) == 2 and all(one["status"].get("phase") == "Running" for one in pods):
                return
            why = next(filter(None, map(held_up, pods)), "")
            if why.startswith("image: "):
                raise NotTried(
                    f"nodes cannot have the sidecar's image: {why.removeprefix('image: ')}",
                    "Push it where the nodes can pull it from, and let them (imagePullSecrets, the registry's rights).",
                )
            self._wait(self.until, f"its pods did not start in time{f': {why}' if why else ''}")

    def _said(self, word: str, until: float, otherwise: str) -> bool:
        """Whether the second pod has said it by then; with `otherwise` it has to."""
        while word not in self.cluster.log("client").split():
            if time.monotonic() > until and not otherwise:
                return False
            self._wait(until if otherwise else float("inf"), otherwise)
        return True

    def _judged(self, parted: bool) -> Finding:
        if parted:
            return Finding("network", "ok", "network policies hold: one that lets nobody in parted two pods")
        return Finding(
            "network",
            "fail",
            "network policies are taken and not enforced: a pod is reached that a policy lets nobody get to",
            "Use a network plugin that enforces them (Dataplane V2, Cilium, Calico, the VPC CNI's own agent): see "
            "docs/how-to/kubernetes.md.",
        )

    def _wait(self, until: float, otherwise: str) -> None:
        if self.stop.wait(LOOK_S):
            raise NotTried("it was stopped")
        if time.monotonic() > until:
            raise NotTried(otherwise)

    def _sweep(self) -> None:
        """What others left that were killed."""
        with contextlib.suppress(IdiError, ValueError):
            every = (self.cluster.get("namespaces", labels=LABEL) or {}).get("items", [])
            for one in every:
                made = datetime.fromisoformat(one["metadata"]["creationTimestamp"].replace("Z", "+00:00"))
                if datetime.now(UTC) - made > LEFT:
                    self.cluster.delete("namespace", one["metadata"]["name"])

    def _remove(self) -> Finding | None:
        for _ in range(2):
            try:
                self.cluster.delete("namespace", self.name)
            except Unreachable:
                continue
            except IdiError:
                break
            else:
                return None
        remedy = f"kubectl --context {self.context} delete namespace {self.name}"
        return Finding("left behind", "fail", f"namespace {self.name} could not be removed", remedy)


def namespace(name: str) -> dict[str, Any]:
    labels = {LABEL: "true", "pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, image: str, script: str, *words: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {LABEL: name}},
        "spec": {
            "restartPolicy": "Never",
            "serviceAccountName": "doctor",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "activeDeadlineSeconds": POD_S,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": ["python", "-c", script, *words],
                    "securityContext": SECURE,
                    "resources": {
                        "requests": {"cpu": "10m", "memory": "32Mi"},
                        "limits": {"memory": "64Mi"},
                    },
                }
            ],
        },
    }


def policy() -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "server"},
        "spec": {"podSelector": {"matchLabels": {LABEL: "server"}}, "policyTypes": ["Ingress"]},
    }


def held_up(one: Mapping[str, Any]) -> str:
    """What keeps a pod from running, `image: ` before it where it is that."""
    status = one.get("status", {})
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") in WAITING:
            return f"image: {waiting.get('message') or waiting['reason']}"
    if status.get("phase") in ("Failed", "Succeeded"):
        return f"{one['metadata']['name']} ended by itself"
    for condition in status.get("conditions", ()):
        if condition.get("reason") == "Unschedulable":
            return str(condition.get("message", "no node takes it"))
    return ""
