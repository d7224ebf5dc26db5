"""The versions of secrets are part of a revision's address, and their values part of nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.load import Loaded, load
from idi.declaration.types import Platform
from idi.plan.desired import desired
from idi.plan.difference import changed_names, spec_changes
from idi.plan.types import Context, KeptSecret, Overlays
from idi.world.types import RevisionSpec

pytestmark = pytest.mark.requirement("S1", "S2")

TEXT = """
platform: shop
modules:
  web:
    run: serve
    secrets: {PASSWORD: shop/database, KEY: {path: web/key, as: file}, AGAIN: shop/database}
    config: {DSN: "postgres://${secret.shop/database}@db", PLAIN: "$${secret.x}"}
  api: {run: serve, secrets: {PASSWORD: shop/database}}
  none: {run: serve}
"""
PATHS = ("shop/database", "web/key")


def shop(text: str = TEXT) -> Platform:
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded), loaded
    return loaded.platform


def specs(**versions: int) -> dict[str, RevisionSpec]:
    kept = {path.replace("_", "/"): KeptSecret(version, 1.0) for path, version in versions.items()}
    found = desired(shop(), Overlays(secrets=kept), Context("/shop", "http://gateway"))
    return {name: module.spec for name, module in found.modules.items()}


def test_references_stay_in_the_environment() -> None:
    environment = specs(shop_database=1, web_key=1)["web"].environment
    assert environment["PASSWORD"] == environment["AGAIN"] == "${secret.shop/database}"
    assert environment["KEY"] == "${secret_file.web/key}"
    assert environment["DSN"] == "postgres://${secret.shop/database}@db"
    assert environment["PLAIN"] == "$${secret.x}"


def test_whoever_declares_none_keeps_the_address_that_it_had() -> None:
    before = specs()["none"]
    assert before.secrets == {}
    assert specs(shop_database=7, web_key=2)["none"] == before


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_a_version_changes_exactly_those_that_use_it(a: int, b: int, c: int, d: int) -> None:
    before, after = specs(shop_database=a, web_key=b), specs(shop_database=c, web_key=d)
    assert (before["web"].revision == after["web"].revision) == ((a, b) == (c, d))
    assert (before["api"].revision == after["api"].revision) == (a == c)
    assert before["none"].revision == after["none"].revision


def test_one_that_is_missing_keeps_the_others_from_being_a_change() -> None:
    assert specs()["web"].secrets == {"shop/database": 0, "web/key": 0}
    assert specs(shop_database=3)["web"] == specs()["web"]
    assert specs(shop_database=3)["api"].secrets == {"shop/database": 3}


def test_the_reason_says_which_version_and_no_value() -> None:
    before, after = specs(shop_database=1, web_key=1)["web"], specs(shop_database=2, web_key=1)["web"]
    assert spec_changes(before, after) == ["secret shop/database version 1 -> version 2"]
    assert changed_names(before, after) == ["secret shop/database"]
    assert spec_changes(specs()["api"], specs(shop_database=1)["api"]) == [
        "secret shop/database not given -> version 1"
    ]


def test_since_when_it_holds_is_no_part_of_it() -> None:
    context = Context("/shop", "http://gateway")
    one, other = (
        desired(shop(), Overlays(secrets={p: KeptSecret(1, at) for p in PATHS}), context) for at in (1.0, 2.0)
    )
    assert one == other
