"""What somebody changed on the cluster behind IDI's back: a declared object against the one that is there. Pure.

Only what is declared is looked at: what the API server fills in, what controllers add and what others own beside it
is theirs. One thing more counts: a variable of a declared container that nobody declared, since a module reads it.
Lists that Kubernetes merges by a key are compared by that key, all others as a whole. Quantities are compared by their
value (`1000m` is `1`), and what is declared empty is declared by nobody, as the server drops it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idi.parts.clients.kubernetes_quantity import quantity
from idi.parts.targets.kubernetes.managers import (
    COUNTED,
    REPLICAS,
    Json,
    Key,
    Place,
    counted_elsewhere,
    last_foreign,
    owner,
)
from idi.world.types import Drift

MOST_SHOWN = 60
SEVERAL = re.compile(r"[\x00-\x1f]")
_KEYS = {
    "containers": ("name",),
    "initContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "imagePullSecrets": ("name",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_WHOLE = ("selector", "podSelector", "namespaceSelector")
_HIDDEN = ("data", "stringData", "annotations")
GONE = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One field; `GONE` is a value that is not there, or that nobody declared."""

    place: Place
    declared: Any
    there: Any


def differences(declared: Json, live: Json) -> list[Difference]:
    """What of the declared object is otherwise in the live one, in the declared order."""
    return list(_map((), declared, live, str(declared.get("kind", ""))))


def drift(declared: Json, live: Json | None) -> list[Drift]:
    """The same in words, with who did it."""
    metadata = declared["metadata"]
    name = f"{declared['kind']} {metadata['name']}"
    if live is None:
        return [Drift(name)]
    found = []
    for one in differences(declared, live):
        manager, _ = owner(live, one.place)
        hidden = secretive(one.place)
        found.append(
            Drift(
                name,
                spelled(one.place),
                "" if hidden else shown(one.declared),
                "" if hidden else shown(one.there),
                manager or last_foreign(live),
                left=one.place == REPLICAS and declared["kind"] == COUNTED and counted_elsewhere(live),
                added=one.declared is GONE,
            )
        )
    return found


def additions(declared: Json, live: Json) -> dict[str, Any] | None:
    """The strategic merge patch that takes away what nobody declared; None where there is nothing."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for one in differences(declared, live):
        if one.declared is GONE:
            *_, kind, container, _env, variable = one.place
            assert isinstance(container, Key)
            assert isinstance(variable, Key)
            named = kinds.setdefault(str(kind), {}).setdefault(str(container.fields[0][1]), [])
            named.append(str(variable.fields[0][1]))
    if not kinds:
        return None
    pod = {
        kind: [
            {"name": container, "env": [{"name": name, "$patch": "delete"} for name in names]}
            for container, names in containers.items()
        ]
        for kind, containers in kinds.items()
    }
    return {"spec": {"template": {"spec": pod}}}


# --- comparing


def _map(place: Place, declared: Json, live: Json, kind: str) -> Iterator[Difference]:
    for name, wanted in declared.items():
        if not place and name in ("apiVersion", "kind", "status"):
            continue  # a list leaves the first two out, and nobody declares the last
        if place == ("metadata",) and name in ("namespace", "creationTimestamp", "managedFields"):
            continue
        yield from _value((*place, name), wanted, live.get(name, GONE), kind)


def _value(place: Place, declared: Any, live: Any, kind: str) -> Iterator[Difference]:
    if declared is None:
        return
    if isinstance(declared, Mapping):
        if place[-1] in _WHOLE:
            if not whole(declared, {} if live is GONE else live):
                yield Difference(place, declared, live)
        elif live is GONE or live is None:
            if not _empty(declared):
                yield Difference(place, declared, GONE)
        elif isinstance(live, Mapping):
            yield from _map(place, declared, live, kind)
        else:
            yield Difference(place, declared, live)
    elif isinstance(declared, Sequence) and not isinstance(declared, str):
        yield from _list(place, declared, live, kind)
    elif not _same(declared, "" if live is GONE or live is None else live, place):
        yield Difference(place, declared, GONE if live is None else live)


def _list(place: Place, declared: Sequence[Any], live: Any, kind: str) -> Iterator[Difference]:
    keys = keys_of(place, declared, kind)
    there = live if isinstance(live, Sequence) and not isinstance(live, str) else []
    if keys is None:
        if not whole(declared, there):
            yield Difference(place, declared, there or GONE)
        return
    found = {key(item, keys): item for item in there if isinstance(item, Mapping)}
    for item in declared:
        its = key(item, keys)
        yield from _value((*place, its), item, found.pop(its, GONE), kind)
    if place[-1] == "env":
        yield from (Difference((*place, its), GONE, item) for its, item in found.items())


def keys_of(place: Place, declared: Sequence[Any], kind: str) -> tuple[str, ...] | None:
    """By which fields Kubernetes tells the items of this list apart; None where it takes the list as a whole."""
    if place[-1] == "ports":
        if kind == "Service":
            return ("port", "protocol")
        return ("containerPort", "protocol") if all("containerPort" in one for one in declared) else None
    return _KEYS.get(str(place[-1]))


def key(item: Json, fields: Sequence[str]) -> Key:
    return Key(tuple((name, item.get(name, "TCP" if name == "protocol" else None)) for name in fields))


def whole(declared: Any, live: Any) -> bool:
    """Whether they are the same, with nothing added: who may set a part of it sets all of it. A policy that also lets
    in somebody else is another policy."""
    if isinstance(declared, Mapping) and isinstance(live, Mapping):
        names = {
            name for one in (declared, live) for name, value in one.items() if not _empty(value, deep=False)
        }
        return all(name in declared and name in live and whole(declared[name], live[name]) for name in names)
    if isinstance(declared, list) and isinstance(live, list):
        return len(declared) == len(live) and all(map(whole, declared, live))
    return type(declared) is type(live) and bool(declared == live)


def _empty(declared: Any, *, deep: bool = True) -> bool:
    """Whether the server keeps nothing of it."""
    if isinstance(declared, Mapping):
        return deep and all(_empty(value) for value in declared.values())
    return declared is None or declared == [] or declared == ""


def _same(declared: Any, live: Any, place: Place) -> bool:
    if isinstance(declared, bool) or isinstance(live, bool):
        return declared is live
    if declared == live:
        return True
    if not _is_quantity(place):
        return False
    ours, theirs = quantity(declared), quantity(live)
    return ours is not None and ours == theirs


def _is_quantity(place: Place) -> bool:
    return any(one in ("resources", "sizeLimit", "hard") for one in place)


# --- words


def spelled(place: Place) -> str:
    text = ""
    for step in place:
        text += str(step) if isinstance(step, Key) or not text else f".{step}"
    return text


def secretive(place: Place) -> bool:
    """Whether a value may be one that only the module is to know, or is too long to tell anybody anything."""
    return any(one in _HIDDEN or one == "env" for one in place)


def shown(value: Any) -> str:
    if value is GONE:
        return "not there"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = SEVERAL.sub(" ", text)
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 3]}..."
