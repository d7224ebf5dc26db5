"""Another version of the logins at the broker: what is wanted, before instances start with it.

It is rotated as a secret is: a version among what was set, which rolls the modules that use it. The key comes first,
then the version, then the instances; so whatever is wanted can be had.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from idi.control.bus.broker import Broker
from idi.control.change.wanted import Wanted
from idi.declaration.types import Platform
from idi.plan.bus import LOGIN_PATH
from idi.plan.types import KeptSecret


@dataclass(slots=True)
class Logins:
    broker: Broker
    clock: Callable[[], float] = time.time

    def another(self, wanted: Wanted) -> Wanted:
        """With the next version. One whose former still runs somewhere is taken on instead: two are good at a time."""
        version = version_of(wanted)
        if not self.broker.settled(version):
            return wanted
        self.broker.make(version + 1)
        kept = {**wanted.overlays.secrets, LOGIN_PATH: KeptSecret(version + 1, self.clock())}
        return replace(wanted, overlays=replace(wanted.overlays, secrets=kept))

    def settle(self, platform: Platform) -> None:
        self.broker.settle(platform)


def version_of(wanted: Wanted) -> int:
    kept = wanted.overlays.secrets.get(LOGIN_PATH)
    return kept.version if kept else 0
