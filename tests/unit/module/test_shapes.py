"""JSON into typed values, with the place of what does not fit."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from idi.module import Secret, shapes
from idi.module.shapes import Misfit

pytestmark = pytest.mark.requirement("G2")


class Kind(enum.Enum):
    HOT = "hot"


@dataclass
class Line:
    item: str
    count: int = 1


@dataclass
class Order:
    lines: list[Line]
    kind: Kind = Kind.HOT
    price: float = 0.0
    note: str | None = None
    paid: Literal["cash", "card"] = "cash"
    more: dict[str, int] = field(default_factory=dict)


def test_what_is_written_is_read_back() -> None:
    order = Order([Line("tea"), Line("cake", 2)], price=2.5, note="für dich", paid="card", more={"a": 1})
    assert shapes.load(shapes.dump(order), Order, "body") == order


def test_unknown_members_are_ignored_and_whole_numbers_are_numbers() -> None:
    found = shapes.load(b'{"lines": [], "price": 2, "new": true}', Order, "body")
    assert found == Order([], price=2.0)
    assert type(found.price) is float


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"", Order, "body is empty, JSON was expected"),
        (b"{", Order, "body is not JSON"),
        (b"[" * 100_000, Order, "body is not JSON"),
        (b"[]", Order, "body must be an object, not []"),
        (b"{}", Order, "body has no lines"),
        (b'{"lines": 1}', Order, "body.lines must be a list, not 1"),
        (b'{"lines": [{"item": "a"}, {"item": 2}]}', Order, "body.lines[1].item must be text, not 2"),
        (b'{"lines": [{"item": "a", "count": true}]}', Order, "body.lines[0].count must be a whole number, not true"),
        (b'{"lines": [], "kind": "cold"}', Order, "body.kind must be one of 'hot', not \"cold\""),
        (b'{"lines": [], "paid": "gold"}', Order, "body.paid must be one of 'cash', 'card', not \"gold\""),
        (b'{"lines": [], "note": 1}', Order, "body.note must be text, not 1"),
        (b'{"lines": [], "more": {"a": "x"}}', Order, 'body.more.a must be a whole number, not "x"'),
        (b'"' + b"x" * 100 + b'"', int, f'body must be a whole number, not "{"x" * 39}...'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(body: bytes, kind: Any, says: str) -> None:
    with pytest.raises(Misfit) as error:
        shapes.load(body, kind, "body")
    assert str(error.value) == says


def test_times_and_sets_are_written() -> None:
    assert shapes.dump({"at": datetime(2026, 1, 2, tzinfo=UTC), "of": {2, 1}}) == (
        b'{"at": "2026-01-02T00:00:00+00:00", "of": [1, 2]}'
    )
    with pytest.raises(TypeError, match="Secret cannot be written as JSON"):
        shapes.dump(Secret("x"))
