"""Faults of a cluster, each undone when its `with` ends.

All of them are inside: a process of one group, a rule in a node's own network, an object of the API server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

from tests.support.cluster import bootstrap
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import API_S, Cluster


@contextmanager
def node_killed(cluster: Cluster, name: str) -> Iterator[None]:
    """A power cut: its processes and its network are gone at once; at the end it is started again, and is Ready."""
    cluster.kill_node(name)
    try:
        yield
    finally:
        since = time.time()
        cluster.start_node(name)
        _await_beat(cluster, name, since)


@contextmanager
def partition(cluster: Cluster, one: str, other: str) -> Iterator[None]:
    """The two nodes and their pods don't hear each other; both still hear the control plane."""
    pairs = [(cluster.node(one), cluster.node(other)), (cluster.node(other), cluster.node(one))]
    rules = [
        (here, ["-s", source, "-j", "DROP"]) for here, far in pairs for source in (far.address, far.pods)
    ]
    laid = []
    try:
        for here, rule in rules:
            # Before connection tracking, so that open connections are cut too.
            cluster.groups[here.name].run("iptables", "-w", "-t", "raw", "-I", "PREROUTING", *rule)
            laid.append((here, rule))
        yield
    finally:
        for here, rule in laid:
            cluster.groups[here.name].run("iptables", "-w", "-t", "raw", "-D", "PREROUTING", *rule)


@contextmanager
def cut_off(cluster: Cluster, name: str) -> Iterator[None]:
    """The node's wire is out: it hears neither the control plane nor the other nodes, and runs on."""
    link = cluster.node(name).link
    cluster.control.network(f"link set {link} down")
    try:
        yield
    finally:
        since = time.time()
        cluster.control.network(f"link set {link} up")
        _await_beat(cluster, name, since)


@contextmanager
def unheard(cluster: Cluster, node: str, address: str) -> Iterator[None]:
    """The pod with this address is heard by its own node alone: kubelet finds it well, and nobody else does."""
    gate = str(next(ip_network(cluster.node(node).pods).hosts()))
    rule = ["-s", address, "!", "-d", gate, "-j", "DROP"]
    cluster.groups[node].run("iptables", "-w", "-t", "raw", "-I", "PREROUTING", *rule)
    try:
        yield
    finally:
        cluster.groups[node].run("iptables", "-w", "-t", "raw", "-D", "PREROUTING", *rule)


@contextmanager
def stopped(cluster: Cluster, node: str, program: str) -> Iterator[None]:
    """A node without its kubelet, containerd, kube-proxy or kube-router; its pods run on."""
    cluster.groups[node].stop(program)
    try:
        yield
    finally:
        since = time.time()
        cluster.groups[node].tell("start", program)
        if program == "kubelet":
            _await_beat(cluster, node, since)


@contextmanager
def without_api_server(cluster: Cluster) -> Iterator[None]:
    """Killed, not asked to end: asked, it takes a minute over its watches."""
    cluster.control.stop("kube-apiserver")
    try:
        yield
    finally:
        cluster.control.tell("start", "kube-apiserver")
        bootstrap.await_roles(cluster.api, API_S)
        # By themselves they would come back after up to half a minute, and no pod be admitted or placed until then.
        for name in ("kube-controller-manager", "kube-scheduler"):
            cluster.control.tell("stop", name)
            cluster.control.tell("start", name)


@contextmanager
def quota_full(kube: Client, namespace: str) -> Iterator[None]:
    """No further pod is admitted to the namespace; those that are there stay."""
    pods = kube.api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    there = sum(one["status"].get("phase") not in ("Succeeded", "Failed") for one in pods)
    quotas = f"/api/v1/namespaces/{namespace}/resourcequotas"
    quota = {"metadata": {"name": "full"}, "spec": {"hard": {"pods": str(there)}}}
    kube.api.create(quotas, quota)
    try:
        kube.api.until(quotas, lambda found: any("hard" in one.get("status", {}) for one in found))
        yield
    finally:
        kube.api.delete(f"{quotas}/full")


def _await_beat(cluster: Cluster, name: str, since: float) -> None:
    """Until the node is Ready by what it said after `since` (seconds of the wall clock, as it stamps them)."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))

    def beat(nodes: list[dict[str, Any]]) -> bool:
        conditions = [one for found in nodes for one in found["status"]["conditions"]]
        return any(
            one["type"] == "Ready" and one["status"] == "True" and one["lastHeartbeatTime"] > stamp
            for one in conditions
        )

    selector = f"metadata.name={name}"
    cluster.api.until("/api/v1/nodes", beat, what=f"{name} Ready again", fieldSelector=selector)
