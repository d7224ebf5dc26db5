"""Every release of an environment as a person installs it by hand: the same values as `idi up` and control give Helm.

What is known only where it runs is not in them: what was scaled, restarted or set by hand there, and secrets. A
secret is no value anyway. The Secret objects that pods mount are made by control, which has what is in them, so pods
of a module with secrets wait until `idi up` has told control the declaration and the secrets are set.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idi.api.environments import RELEASE, signed_values, target_of
from idi.declaration.types import Platform
from idi.parts.clients.helm import charts
from idi.parts.errors import Refused
from idi.parts.targets.kubernetes import values
from idi.parts.targets.references import needed
from idi.plan.bus import with_bus
from idi.plan.desired import desired
from idi.plan.pods import context
from idi.plan.types import Overlays


@dataclass(frozen=True, slots=True)
class Release:
    """`waits`: for Secrets that control makes."""

    name: str
    chart: Path
    values: dict[str, Any]
    waits: bool = False


def releases(platform: Platform) -> list[Release]:
    """The platform's own first. Raises `Refused` where the environment is on no cluster, or names no images."""
    target = target_of(platform)
    found = [Release(RELEASE, charts() / "platform", signed_values(platform))]
    if target.images is None:
        raise Refused("The environment does not name IDI's images.", "Name them under its target.")
    whole = with_bus(platform)
    settings = values.settings_of(whole, platform.namespace, target.images.sidecar)
    around = context(platform.namespace, target.images.sidecar, target.images.relay)
    for name, module in desired(whole, Overlays(), around).modules.items():
        its = needed(module.spec)
        mounts = module.spec.workload.mounts if module.spec.workload else {}
        given = values.release_values(
            settings,
            module.spec,
            module.count,
            values.reach_of(whole, name),
            digest=module.around,
            scale=whole.modules[name].scale,
        )
        found.append(Release(name, charts() / "module", given, bool(its.texts or its.files or mounts)))
    return found
