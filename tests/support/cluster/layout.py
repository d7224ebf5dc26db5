"""Where things are: the addresses inside a cluster, its folders, and its name in the cgroup tree.

Every cluster has the same addresses, because each has its own network: two side by side never meet. None of them
may be dialled from the machine's own network, where they would leave it.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

API = "10.90.0.1"
API_PORT = 6443
STORE_PORT = 2379
PODS = "10.90.16.0/20"
SERVICES = "10.90.200.0/24"
FIRST_SERVICE = "10.90.200.1"
DNS = "10.90.200.10"
DOMAIN = "cluster.local"
REGISTRY_PORT = 5000
REGISTRY = "registry.idi.test"
"""What images are called by; containerd is told where that is."""

POOL = "idi.dev/pool"
"""The label that names a node's pool, and the key of the taint that keeps others off it."""
POOLS = ("general", "ml", "storage")
MOST_NODES = 8


def cache() -> Path:
    """What outlives a run: programs by version, base images, the folders of running clusters."""
    named = os.environ.get("IDI_TEST_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else home / "idi-test"


@dataclass(frozen=True)
class Node:
    number: int
    pool: str

    @property
    def name(self) -> str:
        return f"n{self.number}"

    @property
    def address(self) -> str:
        return f"10.90.0.{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.90.{15 + self.number}.0/24"

    @property
    def link(self) -> str:
        """The node's end of the wire, as the control plane's bridge sees it."""
        return f"v{self.number}"


@dataclass(frozen=True)
class Layout:
    """The folders of the cluster with this name."""

    name: str

    @property
    def folder(self) -> Path:
        return cache() / "clusters" / self.name

    @property
    def lock(self) -> Path:
        return self.folder.with_name(f"{self.name}.lock")

    @property
    def keys(self) -> Path:
        return self.folder / "pki"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def encryption(self) -> Path:
        return self.folder / "encryption.yaml"

    @property
    def cgroup(self) -> str:
        """Its branch of every cgroup tree; the folder is part of it, since two caches may use one name."""
        return f"idi-test-{self.name}-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}"
