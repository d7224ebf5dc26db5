"""A declaration as it can be applied: with the bus that it needs, what was recorded on top of it, and what is worth
saying of that."""

from __future__ import annotations

from dataclasses import dataclass

from idi.declaration.load import Loaded
from idi.declaration.types import Platform
from idi.plan import configured, scaled
from idi.plan.bus import with_bus
from idi.plan.configured import Fitted
from idi.plan.types import Overlays


@dataclass(frozen=True, slots=True)
class Applicable:
    """`overlays` are those that mean something under it. `warnings` are about the file, `notes` about what was set by
    hand."""

    platform: Platform
    overlays: Overlays
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def applicable(loaded: Loaded, found: Fitted) -> Applicable:
    """`loaded` is what `found` has loaded."""
    platform = loaded.platform
    return Applicable(
        with_bus(platform),
        scaled.fitting(platform, found.overlays),
        tuple(map(str, loaded.warnings)),
        (
            *found.notes,
            *scaled.notes(platform, found.overlays),
            *configured.notes(loaded.laid),
            *(
                f"An instance of {name} is run by {run.by} (idi run)."
                for name, run in found.overlays.runs.items()
            ),
        ),
    )
