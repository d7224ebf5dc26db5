"""`idi up` of the nine modules on a real Kubernetes, from nothing: how long, and where the time goes.

The cluster is the tests' own, with three nodes on this machine, and its images are there; the environment is new in
every run, so nodes pull nothing after the first. Beside the command itself the pods are watched: when the API server
told of each step of each pod. What the command waits for, in turn: Helm installs the platform's release, control's pod
gets its volume and starts, its process gets ready, the change runs (OpenBao makes its store, each module is a release
of Helm, its pods are made and started, and become ready).
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from bench.figure import Figure, Options, Spread, main, say
from tests.support.cluster.builds import Images
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import NINE, Environment, declare_nine
from tests.support.cluster.programs import programs
from tests.support.cluster.seen import Seen

GONE_S = 120.0


@dataclass(frozen=True)
class Run:
    """`until`: seconds from the start of the command to each step."""

    seconds: float
    until: Mapping[str, float]
    push_s: float


def measure(options: Options) -> Sequence[Figure]:
    with Cluster(f"bench-{os.getpid()}") as cluster:
        images = Images(cluster, programs()["helm"])
        runs = []
        for number in range(options.repetitions(2, 6)):
            say(f"run {number + 1}")
            with tempfile.TemporaryDirectory(prefix="idi-bench-") as folder:
                one = Environment(
                    Path(folder), cluster.client, images, cluster.programs["helm"], f"b{uuid4().hex[:6]}"
                )
                declare_nine(one)
                runs.append(up(one))
                one.done("down")
                one.kube.kubectl("delete", "namespace", one.namespace, timeout_s=GONE_S)
    # The first one pulls the images.
    warm = runs[1:] or runs
    steps = {name: f"{Spread.of(run.until[name] for run in warm).value:.1f} s" for name in warm[0].until}
    return [
        Figure(
            "idi up with nine modules on Kubernetes, from nothing",
            Spread.of(run.seconds for run in warm),
            "s",
            at_most=300.0,
            stretch=30.0,
            detail=steps,
        ),
        Figure("push of all nine", Spread.of(run.push_s for run in runs), "s", at_most=300.0, stretch=20.0),
    ]


def up(one: Environment) -> Run:
    with Seen(one.kube, one.namespace) as seen:
        begun = time.monotonic()
        said = one.done("up")
        seconds = time.monotonic() - begun
        say(said.out.replace("\n", "\n    "))
        until = {name: at - begun for name, at in sorted(steps(seen).items(), key=lambda item: item[1])}
    begun = time.monotonic()
    one.done("restart", *NINE)
    return Run(seconds, until, time.monotonic() - begun)


def steps(seen: Seen) -> dict[str, float]:
    """Of control its own, of gateway and replicas and modules when the first and the last of them were so far."""
    found: dict[str, dict[str, list[float]]] = {}
    for pod in seen.pods():
        labels = pod["metadata"]["labels"]
        kind = labels.get("idi.dev/part", "modules")
        for step, at in seen.steps(pod["metadata"]["uid"]).items():
            found.setdefault(kind, {}).setdefault(step, []).append(at)
    told = {}
    for kind, its in found.items():
        for step, times in its.items():
            if len(times) == 1:
                told[f"{kind} {step}"] = times[0]
            else:
                told[f"first of {kind} {step}"], told[f"last of {kind} {step}"] = min(times), max(times)
    return told


if __name__ == "__main__":
    sys.exit(main("cluster_start", measure))
