"""What was set beside the file, held against the declaration; changes of it as values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.load import Loaded, Rejected
from idi.declaration.overlay import Value, value_of
from idi.declaration.types import ModuleName
from idi.plan.configured import changed, fitted, having, notes
from idi.plan.desired import desired
from idi.plan.recorded import document_of, from_document
from idi.plan.types import Context, Overlays

pytestmark = pytest.mark.requirement("S1")

JEDE, CAM = ModuleName("jede"), ModuleName("cam")
TEXT = """\
platform: shop
modules:
  jede:
    run: serve
    calls: [cam]
    config: {LEVEL: info, WORKERS: 4}
  cam: {run: serve}
"""
DEBUG = Value("debug")

NAMES = st.sampled_from(["LEVEL", "WORKERS", "OTHER", "NEW"])
VALUES = st.one_of(st.text(max_size=5), st.integers(0, 9), st.booleans()).map(value_of)
SETS = st.dictionaries(NAMES, VALUES, max_size=4)
MODULES = st.sampled_from([JEDE, CAM, ModuleName("eat")])
OVERLAYS = st.builds(lambda config: having(Overlays(), config), st.dictionaries(MODULES, SETS, max_size=3))


def as_bytes(overlays: Overlays) -> bytes:
    return json.dumps(document_of(overlays), sort_keys=True).encode()


def fit(overlays: Overlays, text: str = TEXT) -> tuple[Loaded, Overlays, tuple[str, ...]]:
    found = fitted(text, "platform.yaml", "dev", overlays)
    assert isinstance(found.loaded, Loaded)
    return found.loaded, found.overlays, found.notes


# --- for all values ---


@given(OVERLAYS, MODULES, SETS)
def test_set_twice_is_set_once(before: Overlays, module: ModuleName, values: dict[str, Value]) -> None:
    once = changed(before, module, values)
    assert changed(once, module, values) == once
    assert once.versions.get(module, 0) - before.versions.get(module, 0) == (
        dict(once.config.get(module, {})) != dict(before.config.get(module, {}))
    )


@given(OVERLAYS, MODULES, SETS)
def test_set_and_unset_come_back(before: Overlays, module: ModuleName, values: dict[str, Value]) -> None:
    new = {name: value for name, value in values.items() if name not in before.config.get(module, {})}
    back = changed(changed(before, module, new), module, {}, new)
    assert back.config == before.config
    assert back.versions.get(module, 0) - before.versions.get(module, 0) == (2 if new else 0)


@given(OVERLAYS, MODULES, SETS, st.randoms())
def test_the_order_in_which_values_were_set_means_nothing(
    before: Overlays, module: ModuleName, values: dict[str, Value], chance: object
) -> None:
    backwards = dict(reversed(list(values.items())))
    assert as_bytes(changed(before, module, values)) == as_bytes(changed(before, module, backwards))


@given(OVERLAYS)
def test_what_is_kept_comes_back_in_the_same_bytes(overlays: Overlays) -> None:
    back = from_document(json.loads(as_bytes(overlays)))
    assert back == overlays
    assert as_bytes(back) == as_bytes(overlays)


@given(OVERLAYS)
def test_what_fits_goes_on_fitting_and_is_the_same_revisions(overlays: Overlays) -> None:
    """Whatever was set, the file is applied; and what is left of it is all applied."""
    loaded, left, _ = fit(overlays)
    again, same, nothing = fit(left)
    assert (same, nothing) == (left, ())
    context = Context("/", "http://127.0.0.1:8080")
    assert desired(loaded.platform, left, context) == desired(again.platform, same, context)
    assert {one.module for one in loaded.laid} == set(left.config)


# --- one by one ---


def test_a_version_is_of_one_module_and_never_comes_back() -> None:
    one = changed(Overlays(), JEDE, {"LEVEL": DEBUG})
    two = changed(one, CAM, {"LEVEL": DEBUG})
    assert two.versions == {JEDE: 1, CAM: 1}
    three = changed(two, JEDE, {}, ["LEVEL"])
    assert (three.versions, three.config) == ({JEDE: 2, CAM: 1}, {CAM: {"LEVEL": DEBUG}})
    assert changed(three, JEDE, {}, ["LEVEL"]) == three


def test_true_is_not_one() -> None:
    one = changed(Overlays(), JEDE, {"NEW": value_of(1)})
    assert changed(one, JEDE, {"NEW": value_of(True)}).versions == {JEDE: 2}


def test_a_value_stands_and_is_told_with_the_way_back() -> None:
    loaded, overlays, said = fit(changed(Overlays(), JEDE, {"LEVEL": DEBUG, "NEW": DEBUG}))
    assert overlays.config == {JEDE: {"LEVEL": DEBUG, "NEW": DEBUG}}
    assert said == ()
    assert notes(loaded.laid) == [
        "LEVEL of jede is set by idi config set; platform.yaml:6:21 says otherwise. "
        "idi config set jede --unset LEVEL goes back to that.",
        "NEW of jede is set by idi config set; the file has none. "
        "idi config set jede --unset NEW goes back to that.",
    ]
    assert not any("debug" in note for note in notes(loaded.laid))


def test_a_value_that_the_file_says_by_now_goes_by_itself() -> None:
    before = changed(Overlays(), JEDE, {"LEVEL": DEBUG, "NEW": DEBUG})
    _, after, said = fit(before, TEXT.replace("LEVEL: info", "LEVEL: debug"))
    assert (after.config, after.versions, said) == ({JEDE: {"NEW": DEBUG}}, {JEDE: 2}, ())


def test_a_value_of_a_module_that_is_gone_goes_and_its_version_stays() -> None:
    _, after, _ = fit(having(Overlays(), {ModuleName("old"): {"A": DEBUG}}))
    assert (after.config, after.versions) == ({}, {ModuleName("old"): 2})


def test_a_value_that_cannot_stand_in_the_new_file_goes_and_that_is_said() -> None:
    before = changed(Overlays(), JEDE, {"LINK": Value("${peer.cam.url}"), "NEW": DEBUG})
    assert fit(before)[1] == before
    loaded, after, said = fit(before, TEXT.replace("    calls: [cam]\n", ""))
    assert after.config == {JEDE: {"NEW": DEBUG}}
    assert [one.name for one in loaded.laid] == ["NEW"]
    assert said == (
        "idi config set jede LINK no longer holds, since it does not fit the file: '${peer.cam.url}': the module "
        "does not call 'cam'; add it under 'calls'.",
    )


def test_a_file_that_is_wrong_is_wrong_and_nothing_of_what_was_set_goes() -> None:
    before = changed(Overlays(), JEDE, {"LEVEL": DEBUG})
    found = fitted(TEXT + "  eat: {runn: serve}\n", "platform.yaml", "dev", before)
    assert isinstance(found.loaded, Rejected)
    assert found.overlays == before


def test_documents_from_before_there_was_configuration_are_read() -> None:
    assert from_document({"instances": {"cam": 2}, "generations": {}}) == Overlays({CAM: 2})
