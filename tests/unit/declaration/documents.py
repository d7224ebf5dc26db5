"""Random declarations, made from the same shapes that the loader reads with, and ones that are right as a whole."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import strategies as st

from idi.declaration.records import Named, Record
from idi.declaration.references import Phrase, Setting
from idi.declaration.shapes import Choice, Either, Flag, Many, Shape, Text, Whole
from idi.declaration.units import Cpu, Duration, Percent, Size, Span

Document = dict[str, Any]


def of(shape: Shape) -> st.SearchStrategy[Any]:
    """Plain values of a shape: mostly ones that it accepts."""
    if isinstance(shape, Text):
        pattern = st.from_regex(f"(?:{shape.pattern})", fullmatch=True, alphabet=string.printable[:95])
        return st.one_of(st.just(shape.example), pattern.filter(shape.fits))
    if isinstance(shape, Choice):
        return st.sampled_from(shape.choices)
    if isinstance(shape, Flag):
        return st.booleans() if shape.only is None else st.just(shape.only)
    if isinstance(shape, Whole):
        return st.integers(shape.least, shape.most)
    if isinstance(shape, Duration | Size | Percent):
        return st.sampled_from([shape.example, shape.least, shape.most])
    if isinstance(shape, Cpu):
        return st.sampled_from(["1m", "250m", "2", 1, 0.5, 1000])
    if isinstance(shape, Span):
        return st.sampled_from(["1s..5m", "1s..1s", "10ms..1d"])
    if isinstance(shape, Setting):
        return st.one_of(
            st.integers(-10, 99999), st.booleans(), st.sampled_from(["", "a b", "${port}", "1.10", "no"])
        )
    if isinstance(shape, Phrase):
        return st.sampled_from(["./serve", "./serve --port ${port}", "echo $${x} 'ü'"])
    return _compound(shape)


def _compound(shape: Shape) -> st.SearchStrategy[Any]:
    if isinstance(shape, Either):
        return st.one_of(of(shape.single), of(shape.table))
    if isinstance(shape, Many):
        return st.lists(of(shape.item), min_size=shape.least, max_size=3, unique_by=json.dumps)
    if isinstance(shape, Named):
        return st.dictionaries(of(shape.keys), of(shape.values), min_size=shape.least, max_size=3)
    assert isinstance(shape, Record), shape
    needed = {field.key: of(field.shape) for field in shape.fields.values() if field.needed}
    optional = {field.key: of(field.shape) for field in shape.fields.values() if not field.needed}
    return st.fixed_dictionaries(needed, optional=optional)


NAMES = ("jede", "cam", "pas", "night-watch", "x")


@st.composite
def platforms(draw: st.DrawFn) -> Document:
    """A declaration that is right as a whole: names exist, routes differ, storage has one writer."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    externals = draw(st.lists(st.sampled_from(("warehouse", "partner")), max_size=2, unique=True))
    modules = {name: draw(_modules(name, [*names, *externals])) for name in names}
    document: Document = {"platform": "junzi", "modules": modules}
    if externals:
        document["externals"] = {
            name: {"address": f"{name}.example.com:443", "protocol": "http"} for name in externals
        }
    if draw(st.booleans()):
        document["defaults"] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "grace": st.sampled_from(["1s", "2.5s", "0s"]),
                    "instances": st.integers(1, 3),
                    "readiness": st.sampled_from([{"http": "/up"}, {"every": "100ms"}, {"tcp": True}]),
                    "release": st.sampled_from([{"strategy": "canary"}, {"bake": "3s"}]),
                    "config": st.just({"LEVEL": "info"}),
                },
            )
        )
    if draw(st.booleans()):
        document["gateway"] = draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "token_life": st.just("90s"),
                    "rate_limit": st.just({"requests": 5}),
                    "address_limit": st.just({"anonymous": {"burst": 7}}),
                    "cors": st.just({"origins": ["*"], "methods": ["PUT", "GET"]}),
                    "tls": st.just({"certificate": "ü.pem", "key": "k.pem"}),
                    "clients": st.just({"pilot": {"scopes": ["b", "a"]}}),
                },
            )
        )
    return document


@st.composite
def _modules(draw: st.DrawFn, name: str, known: list[str]) -> Document:
    module: Document = {"run": draw(st.sampled_from(["./serve", "./serve ${port} $${x}"]))}
    calls = draw(st.lists(st.sampled_from(known), max_size=3, unique=True))
    calls = [call for call in calls if call != name]
    if draw(st.booleans()):
        module["calls"] = calls
        module["config"] = {f"PEER_{i}": f"at ${{peer.{call}.address}}" for i, call in enumerate(calls)}
        module["config"]["TEXT"] = draw(
            st.text(st.characters(codec="utf-8", exclude_characters="\0$"), max_size=8)
        )
    if draw(st.booleans()):
        module["ports"] = draw(
            st.sampled_from(
                [{"a": "http", "b": "tcp"}, {"b": "tcp", "a": "http"}, {"g": "grpc"}, {"t": "tcp"}]
            )
        )
    spoken = "t" not in module.get("ports", {})
    if spoken and draw(st.booleans()):
        module["routes"] = draw(
            st.sampled_from(
                [
                    [],
                    [{"path": f"/{name}/", "scopes": ["b", "a"], "timeout": "0s"}],
                    [
                        {"path": f"/{name}/", "public": True},
                        {"path": f"/{name}/", "methods": ["PUT", "GET"], "body": "1KiB"},
                    ],
                    [
                        {
                            "path": f"/{name}/",
                            "host": "*.example.com",
                            "headers": {"x-b": "1", "x-a": "2"},
                            "scopes": [],
                        }
                    ],
                ]
            )
        )
    if draw(st.booleans()):
        module["publishes"] = draw(st.sampled_from([["b.c", "a.b"], ["a.b"]]))
    if spoken and draw(st.booleans()):
        module["handles"] = {"a.b": "/events"}
    if draw(st.booleans()):
        module["secrets"] = {"KEY": {"path": f"{name}/key", "as": "file"}, "PASSWORD": f"{name}/password"}
    module.update(
        draw(
            st.sampled_from(
                [{}, {"storage": {"size": "1.5GiB"}}, {"instances": 0}, {"scale": {"max": 9, "cpu": "33.3%"}}]
            )
        )
    )
    if "storage" not in module and draw(st.booleans()):
        module["release"] = draw(
            st.sampled_from(
                [{"strategy": "canary", "steps": ["0.7%", "29%"]}, {"bake": "1ms"}, {"strategy": "recreate"}]
            )
        )
    return module


def text(document: Document) -> str:
    """JSON is YAML, once the characters that YAML does not print are escaped."""
    written = json.dumps(document, ensure_ascii=False)
    return "".join(
        f"\\u{ord(c):04x}" if 0x7F <= ord(c) <= 0x9F or c in "\u2028\u2029\ufeff\ufffe\uffff" else c
        for c in written
    )
