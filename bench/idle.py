"""What a platform costs while nobody uses it: processor time and memory of control, and of everything.

The nine modules are up (twelve instances, each with its sidecar, the gateway, OpenBao), nobody asks them. Readiness
probes go on as declared, certificates are watched, facts would travel as fast as ever. The modules are small Python
programs; what they use themselves is told apart, because IDI has no say in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from bench.figure import Figure, Options, Spread, cpu_seconds, main, memory_mb, say
from tests.support.platform import NINE, Platform, platform

SETTLE_S = 5.0
PARTS = 6
"""The time is cut into so many windows: their scatter is the noise."""


def measure(options: Options) -> Sequence[Figure]:
    window = options.count(20, 60) / PARTS
    with platform(NINE) as one:
        one.up()
        groups = grouped(one)
        time.sleep(SETTLE_S)
        shares: dict[str, list[float]] = {name: [] for name in groups}
        for part in range(options.runs or PARTS):
            say(f"window {part + 1}/{options.runs or PARTS} of {window:.0f} s")
            for name, share in observed(groups, window).items():
                shares[name].append(share)
        memory = {name: sum(map(memory_mb, pids)) for name, pids in groups.items()}
        resident = memory_mb(groups["control"][0], "Rss")
    cpu = {name: Spread.of(found) for name, found in shares.items()}
    whole = [sum(found) for found in zip(*shares.values(), strict=True)]
    return [
        Figure("idle control", cpu["control"], "% of a core", at_most=1.0),
        Figure(
            "idle platform, everything",
            Spread.of(whole),
            "% of a core",
            detail={name: f"{spread.value:.2f} %" for name, spread in cpu.items()},
        ),
        Figure(
            "control's share of what the idle platform uses",
            Spread.ratios(zip(shares["control"], whole, strict=True)),
        ),
        Figure(
            "memory of control (RSS)",
            only(resident),
            "MB",
            at_most=150.0,
            detail={"PSS": f"{memory['control']:.0f} MB"},
        ),
        Figure(
            "memory of everything (PSS)",
            only(sum(memory.values())),
            "MB",
            detail={f"{name} ({len(groups[name])})": f"{size:.0f} MB" for name, size in memory.items()},
        ),
    ]


def grouped(one: Platform) -> Mapping[str, list[int]]:
    """Every process of the platform, by what it is."""
    groups: dict[str, list[int]] = {
        name: [] for name in ("control", "gateway", "openbao", "sidecars", "modules")
    }
    for name, pid in one.pids().items():
        if name in groups:
            groups[name].append(pid)
        else:
            groups["sidecars" if name.endswith(" sidecar") else "modules"].append(pid)
    known = {pid for pids in groups.values() for pid in pids}
    further = sorted(set(one.processes()) - known)
    return {**groups, "further": further} if further else groups


def observed(groups: Mapping[str, Iterable[int]], seconds: float) -> dict[str, float]:
    """Each group's processor time over this time, in percent of a core."""
    before = {name: cpu_seconds(pids) for name, pids in groups.items()}
    begun = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - begun
    return {name: (cpu_seconds(pids) - before[name]) / took * 100 for name, pids in groups.items()}


def only(value: float) -> Spread:
    return Spread(value, value, value, 1)


if __name__ == "__main__":
    sys.exit(main("idle", measure))
