"""What configuration is, and what a request makes of it; nothing is changed here.

A request names the version at which it read what it replaces. Where that is another by now, somebody else has changed
something in between: it is refused with what is there and what was wanted, and whoever asks decides anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from idi.api.problems import Invalid
from idi.api.types import ConfigRequest, ConfigView, ModuleConfigView
from idi.api.views import config_view
from idi.control.change.wanted import Wanted
from idi.control.trust.issuer import with_keys_url
from idi.control.wording import did_you_mean
from idi.declaration.load import Loaded, Rejected, load
from idi.declaration.overlay import SET_BY, Config, Laid, Value, value_of
from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import Refused
from idi.plan.bus import OWN, with_bus
from idi.plan.configured import changed, config_of, having
from idi.plan.types import Overlays

MOST_VALUES = 1000
"""As many as a file may have for one module."""


@dataclass(frozen=True, slots=True)
class Reconfigured:
    overlays: Overlays
    platform: Platform
    notes: tuple[str, ...]


def configuration(wanted: Wanted, environment: str) -> ConfigView:
    """Of what was applied last, which need not be the file as it is now."""
    return config_view(loaded_with(wanted, environment, wanted.overlays.config).platform, wanted.overlays)


def reconfigured(
    request: ConfigRequest, module: ModuleName, wanted: Wanted, environment: str
) -> Reconfigured:
    """What holds after it; raises `Refused` or `Invalid` where that cannot be."""
    if module in OWN:
        raise Refused(f"{module} comes with the platform and takes no configuration.")
    values = {name: value_of(value) for name, value in request["set"].items()}
    [now] = [one for one in configuration(wanted, environment)["modules"] if one["module"] == module]
    check_request(request, values)
    check_version(request, now)
    check_unset(request["unset"], module, wanted.overlays)
    overlays = changed(wanted.overlays, module, values, request["unset"])
    loaded = loaded_with(wanted, environment, overlays.config)
    # What says no more than the file is not kept.
    overlays = having(wanted.overlays, config_of(loaded.laid))
    notes = [new_name(one, now, wanted.file) for one in loaded.laid if is_new(one, module, values, now)]
    version = overlays.versions.get(module, 0)
    if version != now["version"]:
        notes.append(f"The configuration of {module} is version {version} now.")
    return Reconfigured(overlays, whole(loaded, wanted), tuple(notes))


def read(wanted: Wanted, environment: str, config: Config) -> Loaded | Rejected:
    """The declaration that was applied last, with these values."""
    return load(wanted.text, file=wanted.file, environment=environment, config=config)


def whole(loaded: Loaded, wanted: Wanted) -> Platform:
    """With all that is no part of the file: the bus, and where an external issuer's keys were found."""
    return with_bus(with_keys_url(loaded.platform, wanted.keys_url))


def loaded_with(wanted: Wanted, environment: str, config: Config) -> Loaded:
    loaded = read(wanted, environment, config)
    if isinstance(loaded, Rejected):
        raise Invalid([str(mistake) for mistake in loaded.mistakes])
    return loaded


def check_request(request: ConfigRequest, values: dict[str, Value]) -> None:
    both = sorted({*values} & {*request["unset"]})
    if both:
        raise Refused(f"{both[0]} is to be set and to be unset.", "Say one of the two.")
    if not values and not request["unset"]:
        raise Refused("Nothing is to be set or unset.")
    if len(values) > MOST_VALUES:
        raise Refused(f"{len(values)} values are more than a module may have.", f"At most {MOST_VALUES}.")
    for name, value in values.items():
        if value.plain and value.kind() == "text":
            raise Refused(f"What {name} is to be is no number that every program reads.", "Write it as text.")


def check_version(request: ConfigRequest, now: ModuleConfigView) -> None:
    if request["expect"] == now["version"]:
        return
    there = {one["name"]: one for one in now["values"]}
    found, asked = [], []
    for name in (*request["set"], *request["unset"]):
        one = there.get(name)
        if one is None:
            found.append(f"no {name}")
        else:
            value = "(a secret)" if one["value"] is None else one["value"]
            found.append(f"{name}={value} ({one['origin']})")
        asked.append(
            f"{name}={value_of(request['set'][name]).text}" if name in request["set"] else f"no {name}"
        )
    raise Refused(
        f"The configuration of {now['module']} is version {now['version']}, not {request['expect']}: somebody changed "
        f"it. There is {', '.join(found)}; wanted was {', '.join(asked)}.",
        f"Look at it with idi config get {now['module']}, then set it with --expect {now['version']}.",
    )


def check_unset(names: Iterable[str], module: ModuleName, overlays: Overlays) -> None:
    there = overlays.config.get(module, {})
    for name in names:
        if name not in there:
            hint = did_you_mean(name, there)
            known = (
                f"What it set there: {', '.join(sorted(there))}." if there else "It has set nothing there."
            )
            raise Refused(f"{name} of {module} is not set by {SET_BY}.{hint}", known)


def is_new(one: Laid, module: ModuleName, values: dict[str, Value], now: ModuleConfigView) -> bool:
    known = any(value["name"] == one.name for value in now["values"])
    return one.module == module and one.name in values and one.before is None and not known


def new_name(one: Laid, now: ModuleConfigView, file: str) -> str:
    hint = did_you_mean(one.name, (value["name"] for value in now["values"]))
    return f"{one.name} is a new variable: {file} has none of that name for {one.module}.{hint}"
