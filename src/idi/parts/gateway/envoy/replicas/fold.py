"""What control knows of the proxies, out of what its replicas report. Time comes in as an argument.

A proxy counts by the newest of its streams: one that moved to another replica may still hang at the first, which
does not know yet. Where no stream is, it may be on its way to another replica, or its replica on its way back to
control: for `reconnect_s` it counts as it did and barriers wait for it; after that it is lost and not ready.

Numbers of changes are control's own. A proxy has a change once its replica has taken it (`applied`) and it is not
behind it itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from idi.parts.gateway.envoy.barriers import Barrier, Barriers
from idi.parts.gateway.envoy.plane import OnReady, Standing
from idi.parts.gateway.envoy.replicas.frames import Report
from idi.parts.gateway.interface import Rejection


@dataclass(slots=True)
class _Replica:
    """`nodes`: how the proxies that it holds stand, with `since` by control's clock."""

    applied: int
    nodes: dict[str, Standing]


class Fold:
    def __init__(self, on_ready: OnReady, reconnect_s: float) -> None:
        self.barriers = Barriers()
        self._on_ready = on_ready
        self._reconnect_s = reconnect_s
        self._declared: frozenset[str] = frozenset()
        self._replicas: dict[str, _Replica] = {}
        self._holders: dict[str, set[str]] = defaultdict(set)
        self._left: dict[str, float] = {}
        self._ready: set[str] = set()

    # --- what happens ------------------------------------------------------------------------------

    def declare(self, nodes: Collection[str]) -> None:
        """These are the proxies of the view; others are of no concern."""
        self._declared = frozenset(nodes)
        for gone in self._left.keys() - self._declared:
            del self._left[gone]
        self._ready &= self._declared
        for barrier in self.barriers:
            barrier.only(self._declared)
        for node in self._declared & self._holders.keys():
            self._learn(node)

    def expect(self, now: float) -> None:
        """Their proxies may be serving already, by what an earlier control told them: they are waited for."""
        self._left = dict.fromkeys(self._declared, now)

    def reported(self, replica: str, report: Report, now: float) -> None:
        known = self._replicas.setdefault(replica, _Replica(0, {}))
        moved, known.applied = known.applied != report.applied, report.applied
        gone = set(known.nodes.keys() - report.nodes.keys()) if report.whole else set()
        for node, standing in report.nodes.items():
            if standing is None:
                gone.add(node)
                continue
            known.nodes[node] = replace(standing, since=now - standing.since)
            self._holders[node].add(replica)
            self._left.pop(node, None)
            self._learn(node)
        for node in gone:
            self._gone(replica, node, now)
        self._settle({*(known.nodes if moved else report.nodes), *gone})

    def detached(self, replica: str, now: float) -> None:
        known = self._replicas.get(replica)
        if known is None:
            return
        held = set(known.nodes)
        for node in held:
            self._gone(replica, node, now)
        del self._replicas[replica]
        self._settle(held)

    def passed(self, now: float) -> None:
        """Let proxies go that did not come back."""
        for node, since in self._left.items():
            if now - since >= self._reconnect_s:
                self._set_ready(node, False)
                for barrier in self.barriers:
                    barrier.settle(node, barrier.lost)

    # --- what is known -----------------------------------------------------------------------------

    def barrier(self, seq: int, now: float) -> Barrier:
        made = Barrier(seq)
        for node in self._declared:
            if node in self._holders:
                (made.acknowledged if self._has(node, seq) else made.waiting).add(node)
            elif node in self._left:
                (made.waiting if now - self._left[node] < self._reconnect_s else made.lost).add(node)
        return made

    def connected(self) -> Mapping[str, bool]:
        return {node: node in self._ready for node in self._declared}

    def rejections(self) -> tuple[Rejection, ...]:
        held = sorted(self._holders.keys() & self._declared)
        return tuple(each for node in held for each in self._standing(node)[1].rejections)

    def replicas(self) -> Mapping[str, int]:
        """The number up to which each has taken the changes."""
        return {name: each.applied for name, each in self._replicas.items()}

    # --- inside ------------------------------------------------------------------------------------

    def _standing(self, node: str) -> tuple[_Replica, Standing]:
        """By the newest stream."""
        held = [(self._replicas[name], self._replicas[name].nodes[node]) for name in self._holders[node]]
        return max(held, key=lambda each: each[1].since)

    def _has(self, node: str, seq: int) -> bool:
        replica, standing = self._standing(node)
        return replica.applied >= seq and (standing.behind is None or standing.behind > seq)

    def _learn(self, node: str) -> None:
        if node not in self._declared:
            return
        _, standing = self._standing(node)
        if standing.complete:
            self._set_ready(node, True)
        elif standing.fresh:
            self._set_ready(node, False)

    def _settle(self, nodes: set[str]) -> None:
        for barrier in self.barriers:
            for node in barrier.waiting & nodes & self._holders.keys():
                if self._has(node, barrier.seq):
                    barrier.settle(node, barrier.acknowledged)

    def _gone(self, replica: str, node: str, now: float) -> None:
        if self._replicas[replica].nodes.pop(node, None) is None:
            return
        holders = self._holders[node]
        holders.discard(replica)
        if holders:
            self._learn(node)
            return
        del self._holders[node]
        if node in self._declared:
            self._left[node] = now

    def _set_ready(self, node: str, ready: bool) -> None:
        if ready == (node in self._ready):
            return
        (self._ready.add if ready else self._ready.discard)(node)
        self._on_ready(node, ready)
