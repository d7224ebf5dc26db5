"""What `idi deploy` asks for: some modules as they are declared now, the others as they run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from idi.api.problems import Invalid
from idi.api.types import DeployRequest
from idi.control.change.configuration import loaded_with, read
from idi.control.change.wanted import Wanted
from idi.control.wording import did_you_mean
from idi.declaration.canonical import canonical
from idi.declaration.load import NOTHING_SET, Loaded, load
from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import Refused
from idi.parts.store.interface import JSON
from idi.plan.bus import OWN
from idi.plan.pushed import pushed

DIGEST = 12


@dataclass(frozen=True, slots=True)
class Push:
    """`text` declares what holds afterwards; `names` are the modules that it is about, None: all."""

    text: str
    names: Sequence[ModuleName] | None


def asked_push(request: DeployRequest, wanted: Wanted, environment: str) -> Push:
    """Raises `Refused` or `Invalid` where it cannot be."""
    text, file = request["text"], request["file"]
    if not request["modules"]:
        return Push(text, None)
    found = load(text, file=file, environment=environment, config=NOTHING_SET)
    if not isinstance(found, Loaded):
        raise Invalid([str(mistake) for mistake in found.mistakes])
    declared = found.platform
    names = [named(declared, name) for name in dict.fromkeys(request["modules"])]
    running = loaded_with(wanted, environment, NOTHING_SET).platform
    after = pushed(running, declared, names)
    if canonical(after) == canonical(declared):
        return Push(text, names)  # nothing else differs: the file, with its lines and words
    merged = canonical(after).decode()
    fits = read(Wanted(text=merged, file=file), environment, NOTHING_SET)
    if not isinstance(fits, Loaded):
        raise Refused(
            f"{', '.join(names)} cannot be pushed alone: {fits.mistakes[0].message}.",
            "Push what belongs to it along, or all of it: idi deploy.",
        )
    return Push(merged, names)


def named(platform: Platform, name: str) -> ModuleName:
    if name not in platform.modules or name in OWN:
        hint = did_you_mean(name, platform.modules)
        raise Refused(
            f"The declaration has no module called '{name}'.",
            hint or f"It has {', '.join(platform.modules)}.",
        )
    return ModuleName(name)


def told(platform: Platform, names: Sequence[ModuleName] | None, file: str) -> dict[str, JSON]:
    """What the journal says of it: which modules, and of what they are made."""
    modules = [name for name in platform.modules if name not in OWN] if names is None else [*names]
    images: dict[str, JSON] = {
        name: short(platform.modules[name].image) for name in modules if platform.modules[name].image
    }
    detail: dict[str, JSON] = {"file": file, "modules": [*modules]}
    return {**detail, "images": images} if images else detail


def short(image: str) -> str:
    """By digest, of which the first digits tell images apart."""
    name, _, digest = image.partition("@sha256:")
    return f"sha256:{digest[:DIGEST]}" if digest else name
