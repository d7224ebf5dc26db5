"""What `idi config set` left behind, held against the declaration of now.

A value that was set by hand stays through `idi up`, as a number of instances does, and whoever edits the file has to
be told of it. It goes by itself where it says no more than the file and where its module is gone. Where it cannot
stand in an edited file any more (its reference leads nowhere, its kind is another by now), it goes as well and that
is said: kept, it would make a file wrong that is right, and nothing would be left to take it back with.

Every change of a module's values counts its version up, also one that came about by itself. Whoever sets a value says
which version it was read at, so that of two who do so at once one is told, and nothing of the other's is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from idi.declaration.load import Loaded, Rejected, load
from idi.declaration.overlay import SET_BY, Config, Laid, Value, place_of
from idi.declaration.types import ModuleName
from idi.plan.types import Overlays


def changed(
    overlays: Overlays, module: ModuleName, values: Mapping[str, Value], unset: Iterable[str] = ()
) -> Overlays:
    """With these values of one module, and without those."""
    kept = {name: value for name, value in overlays.config.get(module, {}).items() if name not in set(unset)}
    return having(overlays, {**overlays.config, module: {**kept, **values}})


def having(overlays: Overlays, config: Config) -> Overlays:
    """With exactly these values; the version of every module whose values differ is one more."""
    full = {module: dict(values) for module, values in config.items() if values}
    versions = dict(overlays.versions)
    for module in {*full, *overlays.config}:
        if full.get(module, {}) != dict(overlays.config.get(module, {})):
            versions[module] = versions.get(module, 0) + 1
    return replace(overlays, config=full, versions=versions)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A declaration with the values that hold under it; `notes` say which had to go, and why."""

    loaded: Loaded | Rejected
    overlays: Overlays
    notes: tuple[str, ...] = ()


def fitted(text: str, file: str, environment: str, overlays: Overlays) -> Fitted:
    """The declaration with what was set, as far as it fits there."""
    config, said = overlays.config, dict[str, None]()
    loaded = load(text, file=file, environment=environment, config=config)
    while isinstance(loaded, Rejected):
        wrong = {mistake.file: mistake.message for mistake in loaded.mistakes if not mistake.line}
        fitting = {
            module: {name: value for name, value in values.items() if place_of(module, name) not in wrong}
            for module, values in config.items()
        }
        if fitting == config:
            return Fitted(loaded, overlays)  # the file itself is wrong
        said |= {
            f"{place} no longer holds, since it does not fit the file: {why}": None
            for place, why in wrong.items()
        }
        config, loaded = fitting, load(text, file=file, environment=environment, config=fitting)
    return Fitted(loaded, having(overlays, config_of(loaded.laid)), tuple(said))


def config_of(laid: Iterable[Laid]) -> dict[ModuleName, dict[str, Value]]:
    found: dict[ModuleName, dict[str, Value]] = {}
    for one in laid:
        found.setdefault(one.module, {})[one.name] = one.value
    return found


def notes(laid: Iterable[Laid]) -> list[str]:
    """One sentence for each value that stands against the file, with the way back. Without the values: a plan is
    pasted into more places than a declaration is."""
    return [
        f"{one.name} of {one.module} is set by {SET_BY}; {says(one)}. "
        f"{SET_BY} {one.module} --unset {one.name} goes back to that."
        for one in laid
    ]


def says(one: Laid) -> str:
    return f"{one.before} says otherwise" if one.before else "the file has none"
