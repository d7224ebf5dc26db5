"""How fast a birth, a death or a goodbye of a pod reaches the last Envoy of an environment on a real Kubernetes.

The cluster is the tests' own, with its nodes on this machine, so that all times are of one clock; what is done and
measured is written in tests/support/cluster/propagation.py. Everything shares the cores of this machine: kubelet and
containerd starting containers, the API server, 14 Envoys, control, two replicas of the plane, and the looking.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from bench.figure import Figure, Options, Spread, main, say
from tests.support.cluster.builds import Images
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import Environment
from tests.support.cluster.programs import programs
from tests.support.cluster.propagation import COUNT, declare, percentile, rounds

AIM_MS, STRETCH_MS = 1000.0, 100.0
BATCHES = 4
WHAT = {
    "killed": "SIGKILL of a module's process to the last proxy without it",
    "back": "a module that was started again listens, to the last proxy with it",
    "new": "a module in a new pod listens, to the last proxy with it",
    "deleted": "a pod is deleted, to the last proxy without it",
}


def measure(options: Options) -> Sequence[Figure]:
    with Cluster(f"bench-{os.getpid()}") as cluster, tempfile.TemporaryDirectory(prefix="idi-") as folder:
        images = Images(cluster, programs()["helm"])
        name = f"prop-{uuid4().hex[:4]}"
        made = Environment(Path(folder), cluster.client, images, cluster.programs["helm"], name)
        declare(made)
        made.done("up")
        count = options.repetitions(2, 25)
        say(f"{count} rounds of {COUNT} instances")
        times = rounds(made, count)
        made.idi("down")
    figures = []
    for kind, what in WHAT.items():
        values: list[float] = getattr(times, kind)
        size = max(1, len(values) // BATCHES)
        parts = [values[at : at + size] for at in range(0, size * BATCHES, size)]
        for share in (0.5, 0.99):
            each = [percentile(part, share) for part in parts if part]
            spread = Spread(percentile(values, share), min(each), max(each), len(each))
            aims = (AIM_MS, STRETCH_MS) if share > 0.5 else (None, None)
            told = f"{what}, p{100 * share:g} of {len(values)}"
            figures.append(Figure(told, spread, "ms", at_most=aims[0], stretch=aims[1]))
    how = {"looked at": f"every {times.turn_ms:.1f} ms, by so much a time may be too long"}
    kubelet = Spread.of(times.kubelet)
    figures.append(
        Figure("kubelet says Ready later than the last proxy has it by", kubelet, "ms", detail=how)
    )
    return figures


if __name__ == "__main__":
    sys.exit(main("cluster_propagation", measure))
