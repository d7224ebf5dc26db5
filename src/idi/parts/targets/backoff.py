"""How long to wait before a process is started again, and when its deaths are a crash loop.

Pure: it is told how long the process was up and answers with a delay. The first death after a steady
time is a single accident and answered at once; quick deaths in a row double the delay, and from
`quick_deaths` of them on it is a crash loop, tried again after the longest delay only.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    first_s: float = 0.1
    factor: float = 2.0
    longest_s: float = 10.0
    steady_s: float = 10.0
    quick_deaths: int = 5


class Backoff:
    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._deaths = 0

    @property
    def looping(self) -> bool:
        return self._deaths >= self._policy.quick_deaths

    @property
    def deaths(self) -> int:
        """Quick deaths in a row."""
        return self._deaths

    def died(self, up_s: float) -> float:
        """It died after `up_s` seconds: seconds to wait before the next start."""
        policy = self._policy
        if up_s >= policy.steady_s:
            self._deaths = 0
        self._deaths += 1
        if self.looping:
            return policy.longest_s
        if self._deaths == 1:
            return 0.0
        return min(policy.first_s * policy.factor ** (self._deaths - 2), policy.longest_s)

    def steady(self) -> None:
        """It has been up long enough: what was is forgiven."""
        self._deaths = 0
