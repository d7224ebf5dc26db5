"""Pods as the API server tells of them, and when it told how far each one is: by the monotonic clock of this machine.

What kubelet writes into a pod's status has whole seconds; when its word arrives here is known better.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tests.support.cluster.client import Client

Found = TypeVar("Found")
WITHIN_S = 90.0
FOLLOW_S = 600.0


class Seen:
    """A context manager: inside it the pods of a namespace are watched, by a thread of its own."""

    def __init__(self, kube: Client, namespace: str, selector: str = "") -> None:
        self._kube = kube
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._query = {"labelSelector": selector} if selector else {}
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._pods: dict[str, dict[str, Any]] = {}
        self._steps: dict[str, dict[str, float]] = {}
        self._thread = threading.Thread(target=self._follow, name="pods", daemon=True)

    def __enter__(self) -> Seen:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def pods(self) -> list[dict[str, Any]]:
        """Those that nobody deleted."""
        return [pod for pod in self._pods.values() if "deletionTimestamp" not in pod["metadata"]]

    def at(self, pod: str, step: str) -> float | None:
        """When this one, by its uid, was first seen to have got so far (`steps_of`)."""
        return self._steps.get(pod, {}).get(step)

    def steps(self, pod: str) -> Mapping[str, float]:
        return dict(self._steps.get(pod, {}))

    def until(self, found: Callable[[], Found | None], what: str, timeout_s: float = WITHIN_S) -> Found:
        """Wait until what the pods have come to has something in it."""
        with self._changed:
            if value := self._changed.wait_for(found, timeout_s):
                return value
        raise TimeoutError(f"{what}: not within {timeout_s:g} s")

    def _follow(self) -> None:
        def heard(pods: list[dict[str, Any]]) -> bool:
            now = time.monotonic()
            with self._changed:
                self._pods = {pod["metadata"]["uid"]: pod for pod in pods}
                for uid, pod in self._pods.items():
                    for step in steps_of(pod):
                        self._steps.setdefault(uid, {}).setdefault(step, now)
                self._changed.notify_all()
            return self._over.is_set()

        while not self._over.is_set():
            try:
                self._kube.api.until(self._path, heard, FOLLOW_S, **self._query)
            except Exception as error:
                if not self._over.is_set():
                    print(f"pods are watched anew: {error}")


def steps_of(pod: Mapping[str, Any]) -> Iterator[str]:
    """How far it is: created, scheduled, a container by its name once it was started, ready."""
    status = pod.get("status", {})
    yield "created"
    for condition in status.get("conditions", ()):
        if condition["status"] == "True" and condition["type"] in ("PodScheduled", "Ready"):
            yield "scheduled" if condition["type"] == "PodScheduled" else "ready"
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        if "running" in container.get("state", {}):
            yield str(container["name"])
