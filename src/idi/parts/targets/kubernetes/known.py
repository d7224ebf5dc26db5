"""One pod as an instance: what the cluster says of it, what its sidecar says, what the data plane says.

Three sources are heard in any order, and none is asked: the API server knows that a pod exists and why it does not
run, the agent beside its sidecar knows first whether the module answers (kubelet looks once a second), the data plane
knows whether its proxy has everything. `judge` makes one state of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from idi.parts.targets.kubernetes.pods import PodSeen, numbers
from idi.world.types import Instance, InstanceState


@dataclass(slots=True)
class Known:
    """`reported` is what its agent said last, None before it said anything. `stopping`: its agent says that it is
    about to end; the API server may say so later. `proxied`: its proxy is taken for good; `connected`: it has its
    stream now."""

    pod: PodSeen | None = None
    reported: tuple[bool, str] | None = None
    proxied: bool = False
    connected: bool = False
    stopping: bool = False
    been_ready: bool = False
    told: Instance | None = None

    def judge(self, now: float) -> Instance | None:
        """The instance as it is now; None while the API server has not spoken of it. One that kubelet takes for ready
        had traffic before this control knew of it, and keeps it until somebody says otherwise. One that has lost its
        address (its node lost power) gets another; until then it is by its last one what it was, a proxy with a
        certificate, and has no traffic."""
        pod = self.pod
        if pod is None:
            return None
        if pod.ready and self.told is None and self.reported is None:
            self.reported, self.proxied = (True, ""), True
        state, reason = self._state(pod)
        self.been_ready = self.been_ready or state == "ready"
        its = numbers(pod.spec)
        before = self.told
        address = pod.address or (before.address if before else "")
        return Instance(
            id=pod.name,
            module=pod.module,
            revision=pod.revision,
            state=state,
            address=address,
            ports=its.ports,
            mesh=its.mesh if address else {},
            outbound=its.outbound,
            since=before.since if before and before.state == state else (now if before else pod.since or now),
            restarts=pod.restarts,
            reason=reason,
            node=pod.node,
        )

    def _state(self, pod: PodSeen) -> tuple[InstanceState, str]:
        if pod.leaving or self.stopping:
            return "stopping", ""
        if pod.failed:
            return "failed", pod.reason
        if self.reported and self.reported[0] and self.proxied and pod.address:
            return "ready", ""
        why = pod.reason or (self.reported[1] if self.reported else "waits for its sidecar")
        if self.reported and self.reported[0] and not self.proxied:
            why = "its sidecar is not connected"
        return ("unready" if self.been_ready else "starting"), why
