"""`idi events`: what it asks of control, and what it shows."""

from __future__ import annotations

import io
import json
import sys
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.command.conftest import Run
from tests.command.fake_control import FakeControl

pytestmark = pytest.mark.requirement("B1")

PUBLISH, TAIL = ("POST", "/v1/events"), ("GET", "/v1/events")
DEAD, REPLAY = ("GET", "/v1/dead-letters"), ("POST", "/v1/dead-letters/replay")


def problem(code: int, detail: str, **more: object) -> tuple[int, dict[str, object]]:
    return code, {"type": "about:blank", "title": "X", "status": code, "detail": detail, **more}


def typed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def asked(control: FakeControl) -> Any:
    """The one thing that was asked for."""
    [(_, _, body)] = control.requests
    return body


# --- publish -------------------------------------------------------------------------------------------


@pytest.fixture
def keeping(control: FakeControl) -> FakeControl:
    control.answers[PUBLISH] = 200, {"topic": "jede.decided", "sequence": 7, "duplicate": False}
    return control


def test_publish_sends_one_event_and_says_where_it_is(idi: Run, keeping: FakeControl) -> None:
    found = idi("events", "publish", "jede.decided", '{"case": 7}', "--id", "a1", "--subject", "case-7")
    assert (found.code, found.err) == (0, "")
    assert found.out == "jede.decided 7 is kept, id a1.\n"
    assert asked(keeping) == {
        "event": {
            "specversion": "1.0",
            "id": "a1",
            "source": "/idi/operator",
            "type": "jede.decided",
            "subject": "case-7",
            "datacontenttype": "application/json",
            "data": {"case": 7},
        }
    }


def test_every_event_has_an_id_of_its_own(idi: Run, keeping: FakeControl) -> None:
    for _ in range(2):
        assert idi("events", "publish", "jede.decided", "1").code == 0
    first, second = (body["event"]["id"] for _, _, body in keeping.requests)
    assert len(first) == 32
    assert first != second


@pytest.mark.parametrize(
    ("text", "form", "data"),
    [
        ("7", "application/json", 7),
        ('"a"', "application/json", "a"),
        ("null", "application/json", None),
        ("plain words", "text/plain", "plain words"),
        ("", "text/plain", ""),
    ],
)
def test_data_is_json_or_else_text(idi: Run, keeping: FakeControl, text: str, form: str, data: Any) -> None:
    assert idi("events", "publish", "jede.decided", text).code == 0
    event = asked(keeping)["event"]
    assert (event["datacontenttype"], event["data"]) == (form, data)


def test_data_may_come_from_standard_input(
    idi: Run, keeping: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, '{"a": "é"}'.encode())
    assert idi("events", "publish", "jede.decided").code == 0
    assert asked(keeping)["event"]["data"] == {"a": "é"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"x" * ((1 << 20) + 1), "The data is larger than 1 MiB"), (b"\xff", "The data is not UTF-8.")],
)
def test_what_no_event_can_be_is_not_sent(
    idi: Run, keeping: FakeControl, monkeypatch: pytest.MonkeyPatch, data: bytes, reason: str
) -> None:
    typed(monkeypatch, data)
    found = idi("events", "publish", "jede.decided")
    assert found.code == 2
    assert reason in found.err
    assert keeping.requests == []


def test_one_that_was_there_already_is_said(idi: Run, keeping: FakeControl) -> None:
    keeping.answers[PUBLISH] = 200, {"topic": "jede.decided", "sequence": 3, "duplicate": True}
    found = idi("events", "publish", "jede.decided", "1", "--id", "a1")
    assert found.out == "jede.decided 3 is kept, id a1; one of this id was there already.\n"
    shown = idi("events", "publish", "jede.decided", "1", "--id", "a1", "--json").document
    assert shown == {"topic": "jede.decided", "sequence": 3, "duplicate": True, "id": "a1"}


def test_a_refusal_is_told_with_its_way_out(idi: Run, control: FakeControl) -> None:
    control.answers[PUBLISH] = problem(409, "No event type is called 'x'.", way_out="There is a.b.")
    found = idi("events", "publish", "x", "1")
    assert (found.code, found.out) == (1, "")
    assert found.err == "No event type is called 'x'.\nThere is a.b.\n"


# --- tail ----------------------------------------------------------------------------------------------

EVENT = {"specversion": "1.0", "id": "a1", "source": "/jede", "type": "jede.decided"}


def view(sequence: int, event: dict[str, Any] | None = EVENT, **more: Any) -> dict[str, Any]:
    at = "2026-01-31T12:00:00.250Z"
    return {"topic": "jede.decided", "sequence": sequence, "at": at, "event": event, **more}


def test_tail_asks_for_what_is_wanted(idi: Run, control: FakeControl) -> None:
    control.streams[TAIL] = []
    where = ("--where", "subject=fall é&x=1", "--where", "source=/a=b")
    found = idi("events", "tail", "jede.decided", "cam.changed", "--since", "7", *where)
    assert (found.code, found.out) == (0, "")
    [(_, target, _)] = control.requests
    assert parse_qsl(urlsplit(target).query) == [
        ("topic", "jede.decided"),
        ("topic", "cam.changed"),
        ("attribute", "subject=fall é&x=1"),
        ("attribute", "source=/a=b"),
        ("since", "7"),
    ]


def test_tail_shows_a_line_for_each(idi: Run, control: FakeControl) -> None:
    control.streams[TAIL] = [
        view(1, {**EVENT, "subject": "case-7", "data": {"case": 7, "ä": "ö"}}),
        view(2, {**EVENT, "data": "one\r\n\x1b[31mtwo"}),
        view(3, {**EVENT, "data_base64": "AAAA"}),
        view(4, {**EVENT, "data": "x" * 1000}),
        view(5),
        view(6, None, malformed="the event has no id."),
    ]
    lines = idi("events", "tail").out.splitlines()
    assert lines[:3] == [
        '12:00:00.250 jede.decided 1 /jede a1 case-7 {"case": 7, "ä": "ö"}',
        "12:00:00.250 jede.decided 2 /jede a1 one   [31mtwo",
        "12:00:00.250 jede.decided 3 /jede a1 (3 bytes)",
    ]
    assert lines[3].endswith("x…")
    assert len(lines[3]) < 450
    assert lines[4].rstrip() == "12:00:00.250 jede.decided 5 /jede a1"
    assert lines[5] == "12:00:00.250 jede.decided 6 is no CloudEvent: the event has no id."
    assert [one["sequence"] for one in idi("events", "tail", "--json").documents] == [1, 2, 3, 4, 5, 6]


def test_tail_tells_what_ended_it(idi: Run, control: FakeControl) -> None:
    control.streams[TAIL] = [
        view(1),
        problem(503, "The bus is not ready.", way_out="idi status says why.")[1],
    ]
    found = idi("events", "tail")
    assert found.code != 0
    assert found.out.count("\n") == 1
    assert found.err == "The bus is not ready.\nidi status says why.\n"


def test_tail_takes_no_condition_that_is_none(idi: Run, control: FakeControl) -> None:
    found = idi("events", "tail", "--where", "subject")
    assert found.code == 2
    assert "'subject' is not NAME=VALUE." in found.err
    assert control.requests == []


# --- dead and replay -------------------------------------------------------------------------------------


def letter(id: int, module: str = "cam", **more: Any) -> dict[str, Any]:
    at = "2026-01-31T12:00:00.250Z"
    tries = [{"at": at, "reason": "answered 500: boom"}] * 2
    return {
        "id": id,
        "topic": "jede.decided",
        "module": module,
        "at": at,
        "reason": "answered 500: boom",
        "attempts": len(tries),
        "tries": tries,
        "event": {**EVENT, "data": {"case": 7}},
        **more,
    }


def test_dead_shows_each_with_its_reason_and_the_way_out(idi: Run, control: FakeControl) -> None:
    control.streams[DEAD] = [letter(3), letter(11, "pas", attempts=1, event=None)]
    lines = idi("events", "dead").out.splitlines()
    assert [line.rstrip() for line in lines[:3]] == [
        "   3 jede.decided for cam after 2 attempts, 2026-01-31 12:00:00 UTC",
        "     answered 500: boom",
        '     /jede a1 {"case": 7}',
    ]
    assert "  11 jede.decided for pas after 1 attempt, " in lines[3]
    assert lines[-1] == "2 dead. idi events replay ID hands one out again."
    assert [one["id"] for one in idi("events", "dead", "--json").documents] == [3, 11]


def test_dead_of_one_module(idi: Run, control: FakeControl) -> None:
    control.streams[DEAD] = [letter(3), letter(11, "pas")]
    assert [one["id"] for one in idi("events", "dead", "--module", "pas", "--json").documents] == [11]
    assert idi("events", "dead", "--module", "vtl").out == "No event is dead.\n"
    nothing = idi("events", "dead", "--module", "vtl", "--json")
    assert (nothing.code, nothing.out) == (0, "")


def test_an_end_in_the_middle_is_told_after_what_came(idi: Run, control: FakeControl) -> None:
    control.streams[DEAD] = [letter(3), problem(503, "The bus is not ready.")[1]]
    found = idi("events", "dead")
    assert found.code != 0
    assert "jede.decided for cam" in found.out
    assert "The bus is not ready." in found.err


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [(("3", "7"), {"ids": [3, 7]}), (("--all",), {}), (("--module", "cam"), {"module": "cam"})],
)
def test_replay_asks_for_what_is_named(
    idi: Run, control: FakeControl, arguments: tuple[str, ...], request_: dict[str, Any]
) -> None:
    control.answers[REPLAY] = 200, {"replayed": [3, 7], "left": [], "gone": []}
    found = idi("events", "replay", *arguments)
    assert (found.code, found.out, found.err) == (0, "2 events are handed out again.\n", "")
    assert asked(control) == request_


def test_replay_of_one(idi: Run, control: FakeControl) -> None:
    control.answers[REPLAY] = 200, {"replayed": [3], "left": [], "gone": []}
    assert idi("events", "replay", "3").out == "1 event is handed out again.\n"
    assert idi("events", "replay", "3", "--json").document == {"replayed": [3], "left": [], "gone": []}


def test_a_letter_that_is_gone_is_a_failure_and_the_others_went(idi: Run, control: FakeControl) -> None:
    control.answers[REPLAY] = 200, {"replayed": [3], "left": [], "gone": [7, 8]}
    found = idi("events", "replay", "3", "7", "8")
    assert (found.code, found.out) == (1, "1 event is handed out again.\n")
    assert found.err == "There is no dead letter 7, 8 (any more).\nidi events dead lists them.\n"
    as_json = idi("events", "replay", "3", "7", "8", "--json")
    assert (as_json.code, as_json.document) == (1, {"replayed": [3], "left": [], "gone": [7, 8]})
    assert json.loads(as_json.err)["exit"] == 1


@pytest.mark.parametrize(
    "arguments",
    [(), ("3", "--all"), ("3", "--module", "cam"), ("--all", "--module", "cam"), ("-3",), ("x",), ("0",)],
)
def test_replay_of_nothing_or_of_two_things_at_once_is_a_mistake(
    idi: Run, control: FakeControl, arguments: tuple[str, ...]
) -> None:
    found = idi("events", "replay", *arguments)
    assert found.code == 2
    assert control.requests == []


@pytest.mark.parametrize("command", ["publish a.b 1", "tail", "dead", "replay 3"])
def test_of_what_does_not_run_there_are_no_events(idi: Run, command: str) -> None:
    found = idi("events", *command.split())
    assert (found.code, found.out) == (3, "")
    assert "is not running" in found.err
