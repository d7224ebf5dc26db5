"""A cluster to play with: `python -m tests.support.cluster up|down|status [NAME] [--nodes N]`, or `build` its parts.

A process of its own holds it and takes it down on SIGTERM, so that the command can return.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType

from tests.support.cluster import owner
from tests.support.cluster.base import debian_node, debian_python, go_toolchain
from tests.support.cluster.builds import Images, unbuilt
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster, lacking
from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import MOST_NODES, POOL, POOLS, Layout, cache
from tests.support.cluster.programs import CannotBuild, programs

READY = "ready"
STATUS_S = 30


def build() -> int:
    """Have everything in the cache that takes long; where no cluster can be, there is nothing to be had."""
    if lacks := lacking():
        print(f"test cluster: none here, this machine lacks {', '.join(lacks)}", file=sys.stderr)
        return 0
    helm = programs().get("helm")
    debian_python()
    debian_node()
    go_toolchain()
    if names := unbuilt(helm):
        if not shutil.which("buildah"):
            print(f"test cluster: no buildah, so no image of {', '.join(names)}", file=sys.stderr)
            return 0
        with Cluster(f"build-{os.getpid()}", POOLS[:1]) as cluster:
            made = Images(cluster, helm)
            for name in names:
                _ = made[name]
    return 0


def up(name: str, nodes: int) -> int:
    if lacks := lacking():
        print(f"test cluster: this machine lacks {', '.join(lacks)} (make test-parts)", file=sys.stderr)
        return 1
    layout = Layout(name)
    if owner.owner(layout):
        print(f"test cluster: {name} is up already: export KUBECONFIG={layout.kubeconfig}", file=sys.stderr)
        return 1
    began = time.monotonic()
    programs()
    log = cache() / "clusters" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("w") as written:
        held = subprocess.Popen(
            [sys.executable, "-m", __package__, "hold", name, "--nodes", str(nodes)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=written,
            text=True,
            start_new_session=True,
        )
    assert held.stdout is not None
    told = held.stdout.readline().strip()
    if told != READY:
        print(log.read_text(), file=sys.stderr, end="")
        return held.wait() or 1
    print(f"{nodes} nodes after {time.monotonic() - began:.1f} s")
    print(f"export KUBECONFIG={layout.kubeconfig}")
    # It lives on without this process.
    held.returncode = 0
    return 0


def hold(name: str, nodes: int) -> int:
    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    with Cluster(name, [POOLS[at % len(POOLS)] for at in range(nodes)]):
        print(READY, flush=True)
        while True:
            signal.pause()


def down(name: str) -> int:
    print(f"{name} is down" if owner.end(Layout(name)) else f"no cluster {name}")
    (cache() / "clusters" / f"{name}.log").unlink(missing_ok=True)
    return 0


def status() -> int:
    found = sorted(owner.names())
    for name in found:
        layout = Layout(name)
        pid = owner.owner(layout)
        if pid is None:
            print(f"{name}: its owner is gone; the next start clears it away")
            continue
        print(f"{name}: owned by process {pid}, KUBECONFIG={layout.kubeconfig}", flush=True)
        subprocess.run(Client(layout.kubeconfig).command("get", "nodes", "-L", POOL), timeout=STATUS_S)
    if not found:
        print("no cluster")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.cluster")
    parser.add_argument("command", choices=["build", "up", "hold", "down", "status"])
    parser.add_argument("name", nargs="?", default="idi")
    parser.add_argument("--nodes", type=int, default=len(POOLS), choices=range(1, MOST_NODES + 1))
    given = parser.parse_args()
    try:
        match given.command:
            case "build":
                return build()
            case "up":
                return up(given.name, given.nodes)
            case "hold":
                return hold(given.name, given.nodes)
            case "down":
                return down(given.name)
            case _:
                return status()
    except (ClusterError, CannotBuild) as error:
        print(f"test cluster: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
