"""What holds for every text and every declaration, tried on random ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idi.declaration.canonical import canonical
from idi.declaration.compose import compose
from idi.declaration.load import Loaded, Rejected, load
from idi.declaration.reader import Reader
from idi.declaration.schema import schema
from idi.declaration.spec_platform import ROOT
from idi.declaration.types import Platform
from tests.support.scale import scale
from tests.unit.declaration import documents

FOLDER = Path(__file__).parent
SEEDS = [
    (FOLDER / "golden" / "fine-everything.yaml").read_bytes(),
    (FOLDER.parents[2] / "platform.yaml").read_bytes(),
    b"platform: hello\nmodules:\n  hello: {run: python hello.py}\n",
]
PIECES = [
    b"\t",
    b": ",
    b"- ",
    b"[",
    b"{",
    b"}",
    b"]",
    b"'",
    b'"',
    b"&a ",
    b"*a",
    b"<<: ",
    b"!x ",
    b"#",
    b"|",
    b"\n",
    b"${",
    b"\xff",
    b"\0",
]
EXAMPLES = scale(30, 400)
VALIDATOR = jsonschema.Draft202012Validator(schema())


def checked(result: Loaded | Rejected, text: bytes | str) -> None:
    """A result is well formed: mistakes lie in the file, in order, and say something."""
    if isinstance(result, Loaded):
        assert result.platform.modules
        return
    lines = len(text) + 2  # \r, U+0085 and others end lines too
    assert result.mistakes
    assert list(result.mistakes) == sorted(set(result.mistakes))
    for mistake in result.mistakes:
        assert 1 <= mistake.line <= lines
        assert mistake.column >= 1
        assert mistake.message.endswith((".", "?"))
        assert mistake.message.isprintable()
        assert len(mistake.message) < 8000


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)), st.text(max_size=5))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_text_makes_it_raise(text: bytes | str, environment: str) -> None:
    checked(load(text, environment=environment), text)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A right file with a few bytes replaced, removed, doubled or put in."""
    text = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 12)))
        piece = draw(
            st.one_of(st.sampled_from(PIECES), st.binary(max_size=4), st.just(bytes(text[start:end]) * 2))
        )
        text[start:end] = piece
    return bytes(text)


@pytest.mark.requirement("S1")
@given(mutated(), st.sampled_from(["dev", "staging", "production"]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_mutation_makes_it_raise(text: bytes, environment: str) -> None:
    checked(load(text, environment=environment), text)


def loaded(text: str | bytes, environment: str = "dev") -> Platform:
    result = load(text, environment=environment)
    assert isinstance(result, Loaded), f"{result}\n{text!r}"
    return result.platform


@given(documents.platforms())
@settings(max_examples=EXAMPLES, deadline=None)
def test_canonical_bytes_read_back_as_the_same_platform(document: dict[str, Any]) -> None:
    platform = loaded(documents.text(document))
    kept = canonical(platform)
    again = loaded(kept)
    assert again == platform
    assert hash(again) == hash(platform)
    assert canonical(again) == kept
    VALIDATOR.validate(document)
    VALIDATOR.validate(json.loads(kept))


@given(documents.platforms(), st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_order_of_keys_and_sets_means_nothing(document: dict[str, Any], random: Any) -> None:
    def shuffled(value: Any, key: str) -> Any:
        if isinstance(value, dict):
            entries = list(value.items())
            if key != "ports":  # the first is the default
                random.shuffle(entries)
            return {name: shuffled(part, name) for name, part in entries}
        if isinstance(value, list) and key in ("calls", "publishes", "scopes"):
            return random.sample(value, len(value))
        if isinstance(value, list):
            return [shuffled(part, key) for part in value]
        return value

    one, other = loaded(documents.text(document)), loaded(documents.text(shuffled(document, "")))
    assert canonical(one) == canonical(other)
    assert one == other


@given(documents.platforms(), documents.platforms())
@settings(max_examples=EXAMPLES, deadline=None)
def test_an_environment_is_the_base_with_its_overrides(
    base: dict[str, Any], overrides: dict[str, Any]
) -> None:
    """Loading an environment gives what a file with the merged maps gives."""

    def merged(lower: Any, upper: Any) -> Any:
        if isinstance(lower, dict) and isinstance(upper, dict):
            return {
                **lower,
                **{key: merged(lower[key], part) if key in lower else part for key, part in upper.items()},
            }
        return upper

    changes = {"config": {"LEVEL": "debug"}, "grace": "7s", "calls": []}
    changed = {name: changes for name in overrides["modules"] if name in base["modules"]}
    upper: dict[str, Any] = {"modules": changed, "certificates": {"life": "1h"}}
    for module in base["modules"].values():  # what refers to a peer needs the call
        module.pop("config", None)
    whole = loaded(documents.text(merged(base, upper)))
    apart = loaded(documents.text({**base, "environments": {"dev": upper}}))
    assert apart == whole
    for name in changed:
        assert apart.origins[f"modules.{name}.grace"].kind == "environment"
        assert apart.origins[f"modules.{name}.run"].kind == "file"
    base_only = loaded(documents.text({**base, "environments": {"staging": {"target": "local", **upper}}}))
    assert base_only == loaded(documents.text(base))


@given(documents.of(ROOT))
@settings(max_examples=scale(10, 300), deadline=None)
def test_the_schema_accepts_what_the_shapes_accept(document: dict[str, Any]) -> None:
    source = documents.text(document)
    reader = Reader("platform.yaml", source)
    tree = compose(source, reader)
    assert tree is not None
    ROOT.read(tree, reader, "")
    if not reader.mistakes:
        VALIDATOR.validate(document)
    checked(load(source), source)
