"""Text to `Platform`: the one door of this room.

Every mistake in the file is found, also in environments other than the one asked for, except that
what a target needs (`run`, `image`) is asked only for the environment that is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from idi.declaration.checks import check, check_target
from idi.declaration.compose import compose
from idi.declaration.frozen import Frozen
from idi.declaration.merge import on_layer, over, with_defaults
from idi.declaration.mistakes import Mistake
from idi.declaration.nearest import listed
from idi.declaration.nodes import Items, Node, Scalar, Table, find, keys, names_of
from idi.declaration.overlay import Config, Laid, lay
from idi.declaration.reader import Reader
from idi.declaration.scalars import shown
from idi.declaration.shapes import BAD
from idi.declaration.source import MOST_BYTES, text_of
from idi.declaration.spec_platform import ENVIRONMENT_RECORD, MOST_ENVIRONMENTS, ROOT, TARGET
from idi.declaration.types import (
    Certificates,
    EventType,
    Gateway,
    KubernetesTarget,
    LocalTarget,
    Origin,
    Platform,
)

ENVIRONMENTS = ("dev", "staging", "production")
"""Those that exist in a file that declares none; dev exists in every file."""

NOTHING_SET: Config = Frozen()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A declaration without mistakes. `warnings` are worth saying and stop nothing; `laid` are the values that were
    set beside the file and hold instead of its own."""

    platform: Platform
    warnings: tuple[Mistake, ...] = ()
    laid: tuple[Laid, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """What is wrong, in the order of the file; never empty."""

    mistakes: tuple[Mistake, ...]

    def __str__(self) -> str:
        count = len(self.mistakes)
        lines = [str(mistake) for mistake in self.mistakes]
        return "\n".join([*lines, f"{count} mistake{'s' if count != 1 else ''}, nothing was changed."])


def load(
    text: bytes | str,
    *,
    file: str = "platform.yaml",
    environment: str = "dev",
    most_bytes: int = MOST_BYTES,
    config: Config = NOTHING_SET,
) -> Loaded | Rejected:
    """The declaration as one environment sees it, or all that is wrong with it. Never raises.

    `most_bytes` is for what `canonical` wrote, which is longer than what a person writes; `config` are values that
    were set beside the file (`idi.declaration.overlay`).
    """
    source = text_of(text, file, most_bytes)
    if isinstance(source, Mistake):
        return Rejected((source,))
    reader = Reader(file, source)
    tree = compose(source, reader)
    if tree is None:
        return _rejected(reader)
    laid: list[Laid] = []
    platform = _platform(tree, environment, reader, config, laid)
    if reader.mistakes or platform is None:
        return _rejected(reader)
    return Loaded(platform, _sorted(reader.warnings), tuple(laid))


def environment_names(tree: Table) -> tuple[str, ...]:
    """The environments of a file, dev always among them."""
    declared = names_of(tree, "environments")
    if not 0 < len(declared) <= MOST_ENVIRONMENTS:
        return ENVIRONMENTS
    return declared if "dev" in declared else ("dev", *declared)


def _platform(
    tree: Table, environment: str, reader: Reader, config: Config, laid: list[Laid]
) -> Platform | None:
    sections = _environment_sections(tree, reader)
    base = tree.without("environments")
    known = _known(tree, environment, reader)
    wanted: Platform | None = None
    whole_base = with_defaults(base)
    base_read = False
    for name in dict.fromkeys((*environment_names(tree), environment)):
        section = sections.get(name)
        overrides = section.without("target") if section else None
        own = Reader(reader.file, reader.source)
        if overrides is not None and overrides.entries:
            layered = on_layer(overrides, "environment")
            assert isinstance(layered, Table)
            whole = with_defaults(over(layered, base))
        elif name == environment:
            whole, base_read = whole_base, True
        else:
            if section is not None:
                _target(name, section, reader)
            continue
        if name == environment and config:
            whole, found = lay(whole, config, own)
            laid += found
        platform = _read(whole, name, section, own)
        if name == environment:
            if known:
                check_target(platform, whole, section.get("target") if section else None, own)
            wanted = platform
            reader.warnings.update(own.warnings)
        reader.mistakes.update(own.mistakes)
    if not base_read:  # what an environment replaces is read too: a mistake there only waits
        own = Reader(reader.file, reader.source)
        _read(whole_base, environment, None, own)
        reader.mistakes.update(own.mistakes)
    return wanted


def _environment_sections(tree: Table, reader: Reader) -> dict[str, Table]:
    """The section of each environment; its own keys are checked here, its overrides when merged."""
    node = tree.get("environments")
    if node is None:
        return {}
    field = ROOT.fields["environments"]
    if not isinstance(node, Table) or len(node.entries) > MOST_ENVIRONMENTS:
        field.shape.read(node, reader, "environments")
        return {}
    found: dict[str, Table] = {}
    for entry in node.entries:
        name = entry.key.text
        names: Any = field.shape
        if not names.keys.fits(name):
            reader.report(entry.key, names.keys.wrong(name, "environment name"))
        if not isinstance(entry.value, Table):
            ENVIRONMENT_RECORD.read(entry.value, reader, name)
            continue
        known = []
        for inner in entry.value.entries:
            if inner.key.text in ENVIRONMENT_RECORD.fields:
                known.append(inner)
            else:
                ENVIRONMENT_RECORD.read(Table((inner,), entry.value.line, entry.value.column), reader, name)
        found[name] = Table(tuple(known), entry.value.line, entry.value.column)
    return found


def _known(tree: Table, environment: str, reader: Reader) -> bool:
    names = environment_names(tree)
    if environment in names:
        return True
    where: Node = next((key for key in keys(tree) if key.text == "environments"), tree)
    hint = reader.hint(environment, names)
    reader.report(where, f"there is no environment {shown(environment)} here, only {listed(names)}.{hint}")
    return False


def _read(tree: Table, environment: str, section: Table | None, reader: Reader) -> Platform:
    given = ROOT.read(tree, reader, "")
    if given is BAD:  # something needed is missing: the rest is still worth checking
        given = {
            key: value
            for key, field in ROOT.fields.items()
            if (node := tree.get(key)) is not None
            and (value := field.shape.read(node, Reader(reader.file, reader.source), key)) is not BAD
        }
    target = _target(environment, section, reader)
    modules = given.get("modules", Frozen())
    platform = Platform(
        name=given.get("platform", "platform"),
        environment=environment,
        target=target,
        modules=modules,
        gateway=given.get("gateway", Gateway()),
        certificates=given.get("certificates", Certificates()),
        externals=given.get("externals", Frozen()),
        events=_events(given, modules),
        origins=Frozen(_origins(tree, section, reader.file)),
    )
    check(platform, tree, reader)
    return platform


def _events(given: dict[str, Any], modules: Any) -> Frozen[str, EventType]:
    """Declared event types, and with the defaults those that are only published or handled."""
    events = dict(given.get("events", {}))
    for module in modules.values():
        for name in (*module.publishes, *module.handles, *module.consumes):
            events.setdefault(name, EventType(name))
    return Frozen(events)


def _target(environment: str, section: Table | None, reader: Reader) -> LocalTarget | KubernetesTarget:
    default = LocalTarget() if environment == "dev" else KubernetesTarget(environment)
    node = section.get("target") if section else None
    if node is None:
        return default
    value = TARGET.read(node, reader, "target")
    return default if value is BAD else value


def _origins(tree: Table, section: Table | None, file: str) -> dict[str, Origin]:
    found: dict[str, Origin] = {}

    def walk(node: Node, path: str) -> None:
        if isinstance(node, Table):
            for entry in node.entries:
                inner = f"{path}.{entry.key.text}" if path else entry.key.text
                value = entry.value
                found[inner] = Origin(entry.layer, file, value.line, value.column)
                if not isinstance(value, Scalar):
                    walk(value, inner)
        elif isinstance(node, Items):
            for index, item in enumerate(node.items):
                if isinstance(item, Table):
                    walk(item, f"{path}.{index}")

    walk(tree.without("defaults"), "")
    target = find(section, "target") if section else None
    if target is not None:
        found["target"] = Origin("environment", file, target.line, target.column)
    return found


def _sorted(mistakes: dict[Mistake, None]) -> tuple[Mistake, ...]:
    return tuple(sorted(mistakes, key=lambda one: (one.line, one.column, one.message)))


def _rejected(reader: Reader) -> Rejected:
    return Rejected(_sorted(reader.mistakes))
