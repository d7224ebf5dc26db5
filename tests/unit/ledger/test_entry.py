"""Entries: one value, one sequence of bytes."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.ledger import canonical, entry
from idi.ledger.entry import Actor, ChangeId, Entry, StepId
from idi.ledger.problem import Problem

pytestmark = pytest.mark.requirement("S5")

TIME = "2026-01-02T03:04:05.678901Z"
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-canonical.MAX_INTEGER, canonical.MAX_INTEGER) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


def test_known_encodings() -> None:
    """RFC 8785's own examples of sorting and escaping, as far as they have no fraction."""
    keys = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}
    assert list(json.loads(canonical.encode(keys))) == ["\r", "1", "\x80", "ö", "€", "\U0001f600", "\ufb33"]
    text = '\u20ac$\x0f\nA\'B"\\\\"/'
    assert canonical.encode(text) == b'"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'
    assert canonical.encode({"b": [True, None, -1], "a": {}}) == b'{"a":{},"b":[true,null,-1]}'


@given(VALUES)
def test_what_is_written_reads_back_and_is_the_only_way(value: Any) -> None:
    data = canonical.encode(value)
    assert canonical.decode(data) == value
    assert isinstance(canonical.decode(b" " + data), Problem)


@pytest.mark.parametrize(
    "value",
    [1.5, math.nan, 1 << 53, b"x", {"a": 0.1}, {1: 2}, {"a": [{"b": object()}]}, {1, 2}],
)
def test_what_has_no_one_way_to_be_written_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^\$"):
        canonical.encode(value)


def test_depth_has_a_bound() -> None:
    deep: Any = 1
    for _ in range(canonical.MAX_DEPTH + 1):
        deep = [deep]
    with pytest.raises(ValueError, match="nested"):
        canonical.encode(deep)
    assert isinstance(canonical.decode(b"[" * 100_000 + b"]" * 100_000), Problem)


def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    assert canonical.encode("a\udce9b") == '"a\ufffdb"'.encode()


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"b":1,"a":2}',
        b"1.0",
        b"1e3",
        b"NaN",
        b'"\\u00e9"',
        b"01",
        b"\xff",
        b"",
        b"1" * 5000,
    ],
)
def test_bytes_that_are_not_canonical(data: bytes) -> None:
    assert isinstance(canonical.decode(data), Problem)


def entries() -> st.SearchStrategy[Entry]:
    ids = st.none() | st.integers(0, 1 << 40)
    return st.builds(
        Entry,
        index=st.integers(0, 1 << 40),
        time=st.just(TIME),
        actor=st.builds(Actor, ANY_TEXT, ANY_TEXT, st.none() | st.integers(0, 1 << 32), ids),
        phase=st.sampled_from(entry.PHASES),
        action=ANY_TEXT,
        subject=ANY_TEXT,
        change=ids.map(lambda one: None if one is None else ChangeId(one)),
        step=ids.map(lambda one: None if one is None else StepId(one)),
        ok=st.none() | st.booleans(),
        relief=st.booleans(),
        detail=st.dictionaries(ANY_TEXT, VALUES, max_size=3),
        documents=st.dictionaries(ANY_TEXT, st.none() | st.just("ab" * 32), max_size=3),
    )


@given(entries())
def test_an_entry_reads_back(one: Entry) -> None:
    assert entry.decode(entry.encode(one)) == one


GOOD: dict[str, Any] = {
    "index": 3,
    "time": TIME,
    "actor": {"kind": "peer", "name": "ada", "uid": 1000},
    "phase": "note",
    "action": "drift",
}


def test_the_smallest_entry() -> None:
    found = entry.decode(canonical.encode(GOOD))
    assert found == Entry(3, TIME, Actor("peer", "ada", 1000), "note", "drift")


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": "3"},
        {"index": None},
        {"index": True},
        {"time": "yesterday"},
        {"time": "2026-01-02T03:04:05Z"},
        {"actor": {"kind": "peer"}},
        {"actor": "ada"},
        {"actor": {"kind": "peer", "name": "ada", "shoe": 43}},
        {"phase": "other"},
        {"action": 1},
        {"subject": ""},
        {"relief": False},
        {"relief": 1},
        {"detail": {}},
        {"detail": []},
        {"documents": {"a": "short"}},
        {"unknown": 1},
        {"step": 1.0},
    ],
)
def test_entries_that_are_none(change: dict[str, Any]) -> None:
    data = json.dumps({**GOOD, **change}, sort_keys=True, separators=(",", ":")).encode()
    assert isinstance(entry.decode(data), Problem)


@given(st.binary(max_size=200))
def test_garbage_is_a_problem_and_not_an_exception(data: bytes) -> None:
    assert isinstance(entry.decode(data), Problem)
