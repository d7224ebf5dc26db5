"""What `idi scale` left behind, held against the declaration of now.

A number of instances that was set by hand stays through `idi up`, and whoever edits the file has to be told
of it. It goes by itself where it says no more than the file, where its module is gone, and where the module
has storage by now, which never has two writers.
"""

from __future__ import annotations

from dataclasses import replace

from idi.declaration.types import ModuleName, Platform
from idi.plan.types import Overlays

ORIGIN = "idi scale"


def fitting(platform: Platform, overlays: Overlays) -> Overlays:
    """Without what means nothing under this declaration."""
    kept = {name: count for name, count in overlays.instances.items() if fits(platform, name, count)}
    runs = {name: run for name, run in overlays.runs.items() if name in platform.modules}
    return replace(overlays, instances=kept, runs=runs)


def fits(platform: Platform, name: ModuleName, count: int) -> bool:
    module = platform.modules.get(name)
    return module is not None and count != module.instances and not (module.storage and count > 1)


def notes(platform: Platform, overlays: Overlays) -> list[str]:
    """One sentence for each number that stands against the file, with the way back."""
    found = []
    for name, count in fitting(platform, overlays).instances.items():
        declared = platform.modules[name].instances
        origin = platform.origins.get(origin_of(name))
        where = "the default" if origin is None or str(origin) == "default" else str(origin)
        many = "1 instance" if count == 1 else f"{count} instances"
        found.append(
            f"{name} has {many} by idi scale; {where} says {declared}. "
            f"idi scale {name}={declared} goes back to that."
        )
    return found


def origins(platform: Platform, overlays: Overlays) -> dict[str, str]:
    """Where every value came from, with these numbers."""
    found = {path: str(origin) for path, origin in platform.origins.items()}
    return found | {origin_of(name): ORIGIN for name in fitting(platform, overlays).instances}


def origin_of(name: ModuleName) -> str:
    return f"modules.{name}.instances"
