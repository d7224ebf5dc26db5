"""What the agent knows, and what follows from it: the report to control and the answer to the kubelet.

Pure. A pod is ready for the kubelet once its module is ready, Envoy is live and control has said that calls may come
its way (`in_rotation`). The last holds until the module becomes unready: then what control said before means nothing,
and an answer to a report of before must not count either, so every change to unready begins another `round`.
"""

from __future__ import annotations

from collections.abc import Callable


class State:
    """`changed(urgent)` is called when the report is another one; a reason alone is not urgent."""

    def __init__(self, *, module: bool) -> None:
        self.round = 0
        self.in_rotation = False
        self.stopping = False
        self.changed: Callable[[bool], None] = lambda _: None
        self._has_module = module
        self._module_ready = False
        self._envoy_live = False
        self._reason = "waiting for its module" if module else ""
        self._envoy_reason = "Envoy has not been started"

    @property
    def can_serve(self) -> bool:
        """What is reported as ready; of a gateway Envoy is all there is."""
        return self._module_ready if self._has_module else self._envoy_live

    @property
    def waiting_for(self) -> str:
        """Why the kubelet is told no; empty when it is told yes."""
        if self.stopping:
            return "it is stopping"
        if self._has_module and not self._module_ready:
            return self._reason
        if not self._envoy_live:
            return self._envoy_reason
        return "" if self.in_rotation else "waiting for control to let calls in"

    def report(self) -> dict[str, object]:
        reason = self._reason if self._has_module else self._envoy_reason
        return {
            "ready": self.can_serve,
            "reason": "" if self.can_serve else reason,
            "envoy": "live" if self._envoy_live else "down",
        }

    def module(self, *, ready: bool, reason: str = "") -> None:
        """The module was judged."""
        before, self._module_ready = self._module_ready, ready
        reason, self._reason = self._reason, reason
        if before and not ready and self._has_module:
            self._another_round()
        if before != ready or reason != self._reason:
            self.changed(before != ready)

    def envoy(self, *, live: bool, reason: str = "") -> None:
        """Envoy was judged."""
        before, self._envoy_live = self._envoy_live, live
        reason, self._envoy_reason = self._envoy_reason, reason
        if before and not live and not self._has_module:
            self._another_round()
        if before != live or (reason != self._envoy_reason and not self._has_module):
            self.changed(before != live)

    def answered(self, round_: int, ready: bool, in_rotation: bool) -> None:
        """Control's answer to a report that said `ready` in that round."""
        if ready and in_rotation and round_ == self.round:
            self.in_rotation = True

    def _another_round(self) -> None:
        self.round += 1
        self.in_rotation = False
