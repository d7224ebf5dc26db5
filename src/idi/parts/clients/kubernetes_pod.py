"""Whether a pod is ready, and why it does not run, from its status, in a sentence for people: pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

CANNOT_START = frozenset(
    {
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
CRASHES = "CrashLoopBackOff"
MOST_REASON = 300


def is_ready(status: Mapping[str, Any]) -> bool:
    """By kubelet's word."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))


def trouble(status: Mapping[str, Any], main: str = "") -> tuple[bool, str]:
    """Whether it has failed, and why it does not run; empty where it does. `main` is the container that a reader means
    by "it"."""
    for container in containers(status):
        waiting = container.get("state", {}).get("waiting", {})
        reason = waiting.get("reason", "")
        if reason == CRASHES:
            return True, f"{of(container, main)}it {ended(container) or 'ends'} again and again"
        if reason in CANNOT_START:
            return True, shorten(f"{of(container, main)}{waiting.get('message') or reason}")
        if reason == "ErrImagePull":
            return False, shorten(
                f"{of(container, main)}its image cannot be pulled: {waiting.get('message', '')}"
            )
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return False, shorten(
                f"waits for a node: {condition.get('message', condition.get('reason', ''))}"
            )
    for container in containers(status):
        if "running" not in container.get("state", {}) and (how := ended(container)):
            return False, f"{of(container, main)}it {how} and is started again"
    return False, ""


def containers(status: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from status.get("initContainerStatuses", [])
    yield from status.get("containerStatuses", [])


def of(container: Mapping[str, Any], main: str) -> str:
    return "" if container["name"] == main else f"its {container['name']}: "


def ended(container: Mapping[str, Any]) -> str:
    """How it ended the last time."""
    for state in (container.get("state", {}), container.get("lastState", {})):
        if over := state.get("terminated"):
            if over.get("reason") == "OOMKilled":
                return "took more memory than it may have"
            if signal := over.get("signal"):
                return f"was ended by signal {signal}"
            return f"exited with {over.get('exitCode', '?')}"
    return ""


def shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_REASON else f"{text[: MOST_REASON - 3]}..."
