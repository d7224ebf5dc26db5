"""What is held against a history of requests, each in a history that has just that."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.history import Request, Verdict, Window, judge, read

pytestmark = pytest.mark.requirement("T3")


def asked(
    number: int,
    at: float,
    took: float = 0.1,
    *,
    status: int = 200,
    client: str = "a",
    method: str = "GET",
    by: str = "cam-1",
    echoed: str = "",
) -> Request:
    named = echoed or f"{client}-{number}"
    return Request(client, number, method, at, at + took, status, "", (by,), named if status == 200 else "")


def steady(count: int = 10, client: str = "a") -> Iterator[Request]:
    return (asked(number, float(number), client=client) for number in range(count))


def but(changed: Request, count: int = 10) -> list[Request]:
    return [changed if one.number == changed.number else one for one in steady(count)]


def test_a_good_one_has_no_faults() -> None:
    verdict = judge([*steady(), *steady(client="b")], worked=[("cam-1", "a-3"), ("cam-1", "b-3")])
    assert verdict.faults == []
    assert (verdict.sent, verdict.failed) == (20, 0)
    assert verdict.by == {"cam-1": 20}
    assert verdict.gap == pytest.approx(1.0)
    assert verdict.slowest == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("sent", "took", "permitted"),
    [(3.0, 0.1, False), (3.0, 2.0, True), (5.0, 0.1, True), (6.9, 5.0, True), (7.1, 0.1, False)],
)
def test_a_failure_is_permitted_while_the_fault_is_there(sent: float, took: float, permitted: bool) -> None:
    verdict = judge(but(asked(3, sent, took, status=503)), [Window(4.5, 7.0)])
    assert verdict.failed == 1
    assert [one.name for one in verdict.outside] == ([] if permitted else ["a-3"])


def test_a_window_may_be_for_some_methods_only() -> None:
    window = Window(0, 10, frozenset({"POST"}))
    assert judge(but(asked(3, 3.0, status=503)), [window]).outside
    assert not judge(but(asked(3, 3.0, status=503, method="POST")), [window]).outside


def test_without_a_window_every_failure_counts() -> None:
    [fault] = judge(but(asked(3, 3.0, status=0))).faults
    assert fault.startswith("1 failed and may not: GET a-3 at 3.00 after 0.10 s: 0")


def test_the_longest_time_without_success_is_of_one_client() -> None:
    failing = [asked(number, float(number), status=0 if 3 <= number < 8 else 200) for number in range(10)]
    verdict = judge([*failing, *steady(client="b")], [Window(0, 10)])
    assert verdict.gaps == {"a": pytest.approx(6.0), "b": pytest.approx(1.0)}


@pytest.mark.parametrize("ok", [(0, 1), (8, 9), ()])
def test_it_counts_from_the_first_request_and_to_the_last(ok: tuple[int, ...]) -> None:
    history = [asked(number, float(number), status=200 if number in ok else 503) for number in range(10)]
    assert judge(history, [Window(0, 10)]).gap == pytest.approx({(0, 1): 8.0, (8, 9): 8.1, (): 9.1}[ok])


def test_who_is_gone_answers_nobody_who_asks_later() -> None:
    assert not judge(steady(), gone={"cam-1": 9.05, "cam-2": 0.0}).faults
    [ghost] = judge(but(asked(8, 8.0, by="cam-2")), gone={"cam-2": 7.9}).ghosts
    assert ghost.name == "a-8"


def test_an_answer_to_somebody_else_is_seen() -> None:
    [crossed] = judge(but(asked(4, 4.0, echoed="a-3"))).crossed
    assert crossed.name == "a-4"


def test_what_changes_something_is_worked_on_once() -> None:
    posts = [asked(number, float(number), method="POST") for number in range(3)]
    once = [("jede-1", "a-1"), ("cam-1", "a-1"), ("cam-2", "a-2")]
    assert not judge(posts, worked=once).faults
    assert judge(posts, worked=[*once, ("cam-2", "a-1")]).repeated == ["a-1"], "by another instance"
    assert judge(posts, worked=[*once, ("cam-2", "a-2")]).repeated == ["a-2"], "by the same one"
    assert not judge(steady(), worked=[*once, *once]).faults, "a GET may be"


def test_a_hole_is_seen() -> None:
    assert judge(one for one in steady() if one.number != 4).missing == ["a-4"]
    assert judge([*steady(), asked(4, 4.0)]).missing == ["a-4"], "which of the two it was nobody knows"


def test_lines_are_read_back() -> None:
    line = json.dumps(["a", 0, "GET", 1.5, 2.0, 200, "", ["jede-1", "cam-1"], "a-0"])
    [one] = read(f"started\n{line}\n")
    assert one == Request("a", 0, "GET", 1.5, 2.0, 200, "", ("jede-1", "cam-1"), "a-0")
    assert isinstance(judge([one]), Verdict)
