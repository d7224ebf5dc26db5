"""What a declaration's references stand for in one instance: pure, and the same on every target.

`${port}`, `${peer.cam.url}`, `${data_dir}` stay in a revision's texts as they were written; whoever starts an instance
knows its numbers and fills them in. Values of secrets are filled in like them and are kept nowhere else.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idi.parts.errors import Bug
from idi.parts.targets.interface import Variable
from idi.world.types import InstanceId, RevisionSpec

_REFERENCE = re.compile(r"\$(\$)\{|\$\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Needed:
    """Paths of secrets that a revision refers to: as text, and as the path of a file."""

    texts: frozenset[str]
    files: frozenset[str]


@dataclass(frozen=True, slots=True)
class Place:
    """What references are filled from. `data_dir` is None where the module declares no storage; `secrets` are values
    and `secret_files` the files that hold them, by path. Values of secrets are in the process alone: specs and
    records keep the reference."""

    instance: InstanceId
    ports: Mapping[str, int]
    outbound: Mapping[str, int]
    data_dir: Path | None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    secret_files: Mapping[str, str] = field(default_factory=dict)


def needed(spec: RevisionSpec) -> Needed:
    """Which secrets its texts refer to."""
    found: dict[str, set[str]] = {"secret": set(), "secret_file": set()}
    for text in (spec.command, *spec.environment.values()):
        for match in _REFERENCE.finditer(text):
            kind, _, path = (match[2] or "").partition(".")
            if kind in found:
                found[kind].add(path)
    return Needed(frozenset(found["secret"]), frozenset(found["secret_file"]))


def environment(spec: RevisionSpec, place: Place, inherited: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a module's process."""
    given = {"IDI_INSTANCE": str(place.instance)}
    if spec.ports:
        given["PORT"] = str(place.ports[spec.ports[0].name])
    if place.data_dir is not None:
        given["IDI_DATA_DIR"] = str(place.data_dir)
    declared = {name: fill(value, spec, place) for name, value in spec.environment.items()}
    return {**inherited, **declared, **given}


def own(spec: RevisionSpec, place: Place, *, seated: bool, revealed: bool) -> list[Variable]:
    """What the platform itself gives of an environment, for whoever looks at it. Not `seated`: `place` is no
    instance's, so it has no numbers."""
    numbers = {"IDI_INSTANCE": "${instance}"}
    if spec.ports:
        numbers["PORT"] = "${port}"
    if spec.storage:
        numbers["IDI_DATA_DIR"] = "${data_dir}"
    found = []
    for name, value in sorted({**spec.environment, **numbers}.items()):
        kinds = {(match[2] or "").partition(".")[0] for match in _REFERENCE.finditer(value)} - {""}
        secret = "secret" in kinds
        needs_place = bool(kinds - {"secret"})
        hidden = (secret and not revealed) or (needs_place and not seated)
        found.append(Variable(name, None if hidden else fill(value, spec, place), secret))
    return found


def command_line(line: str, spec: RevisionSpec, place: Place) -> str:
    """A command line for the shell with its references filled, each quoted where it has to be."""
    return fill(line, spec, place, quote=shlex.quote)


def fill(text: str, spec: RevisionSpec, place: Place, *, quote: Callable[[str], str] = str) -> str:
    """Text with its references filled; `$${` gives a literal `${`."""

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "${"
        return quote(_value(match[2], spec, place))

    return _REFERENCE.sub(value, text)


def _value(reference: str, spec: RevisionSpec, place: Place) -> str:
    kind, _, path = reference.partition(".")
    try:
        if kind == "secret":
            return place.secrets[path]
        if kind == "secret_file":
            return place.secret_files[path]
        match reference.split("."):
            case ["instance"]:
                return str(place.instance)
            case ["data_dir"] if place.data_dir is not None:
                return str(place.data_dir)
            case ["port"]:
                return str(place.ports[spec.ports[0].name])
            case ["port", name]:
                return str(place.ports[name])
            case ["peer", peer, field]:
                return _peer(peer, field, spec, place)
            case ["peer", peer, port, field]:
                return _peer(f"{peer}.{port}", field, spec, place)
    except (KeyError, IndexError, StopIteration):
        pass
    raise Bug(f"{spec.module} has a reference that nobody can fill: ${{{reference}}}.")


def _peer(name: str, field: str, spec: RevisionSpec, place: Place) -> str:
    port = place.outbound[name]
    match field:
        case "port":
            return str(port)
        case "address":
            return f"127.0.0.1:{port}"
        case "url":
            tcp = next(peer for peer in spec.peers if peer.name == name).protocol == "tcp"
            return f"{'tcp' if tcp else 'http'}://127.0.0.1:{port}"
    raise KeyError(field)
