"""The JSON Schema is one, explains every key, and agrees with the loader; so do the page and the example."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from idi.declaration.example import example
from idi.declaration.load import Loaded, Rejected, load
from idi.declaration.reference import reference
from idi.declaration.schema import schema

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).parent / "golden"
VALIDATOR = jsonschema.Draft202012Validator(schema())


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    assert json.loads(json.dumps(schema())) == schema()


def properties(node: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        for name, part in node.get("properties", {}).items():
            yield f"{where}.{name}", part
        for key, part in node.items():
            yield from properties(part, f"{where}.{key}")
    elif isinstance(node, list):
        for part in node:
            yield from properties(part, where)


def test_every_key_is_explained_and_has_an_example_that_it_accepts() -> None:
    whole = schema()
    found = list(properties(whole))
    assert len(found) > 100
    for where, part in found:
        assert part.get("description", "").endswith("."), where
        assert part["examples"], where
        checker = jsonschema.Draft202012Validator({**part, "$defs": whole["$defs"]})
        for value in [*part["examples"], *([part["default"]] if "default" in part else [])]:
            assert checker.is_valid(value), (where, value)


def test_every_reference_inside_it_leads_somewhere() -> None:
    whole = schema()
    text = json.dumps(whole)
    for name in whole["$defs"]:
        assert f'"#/$defs/{name}"' in text, f"{name} is used by nobody"


BOUNDS = {"shape-certificate-life"}
"""Wrong only by a bound on a value with a unit, which a pattern cannot say."""
SHAPES = [path for path in sorted(GOLDEN.glob("shape-*.yaml")) if path.stem not in BOUNDS]


@pytest.mark.parametrize("path", SHAPES, ids=lambda path: path.stem)
def test_a_wrong_shape_fails_both(path: Path) -> None:
    assert isinstance(load(path.read_bytes()), Rejected)
    document = yaml.safe_load(path.read_bytes())
    assert not VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    "path", sorted([*GOLDEN.glob("fine-*.yaml"), *GOLDEN.glob("warning-*.yaml")]), ids=lambda p: p.stem
)
def test_what_is_right_passes_both(path: Path) -> None:
    document = yaml.safe_load(path.read_bytes())
    VALIDATOR.validate(document)


def test_the_repository_declares_its_platform() -> None:
    text = (ROOT / "platform.yaml").read_bytes()
    VALIDATOR.validate(yaml.safe_load(text))
    for environment in ("dev", "staging", "production"):
        result = load(text, environment=environment)
        assert isinstance(result, Loaded), str(result)
        assert result.warnings == ()
        assert sorted(result.platform.modules) == [
            "cam",
            "cti",
            "dere",
            "eat",
            "jede",
            "pas",
            "rame",
            "sfl",
            "vtl",
        ]
        assert len(result.platform.gateway.clients) == 5
        assert result.platform.gateway.rate_limit.requests >= 200


def test_the_example_is_right_and_its_code_compiles() -> None:
    files = example()
    first = files["platform.yaml"].split("\n", 1)[0]
    assert first == "# yaml-language-server: $schema=./platform.schema.json"
    result = load(files["platform.yaml"])
    assert isinstance(result, Loaded), str(result)
    assert result.warnings == ()
    for name, text in files.items():
        if name.endswith(".py"):
            compile(text, name, "exec")


def test_the_page_is_the_one_that_the_shapes_give() -> None:
    assert (ROOT / "docs" / "reference" / "declaration.md").read_text(encoding="utf-8") == reference()


def test_the_page_names_every_key() -> None:
    page = reference()
    for where, _ in properties(schema()):
        assert f"`{where.rsplit('.', 1)[1]}`" in page, where
