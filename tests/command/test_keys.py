"""`idi keys`: what it asks for, and what a list says."""

from __future__ import annotations

import pytest

from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, step

pytestmark = pytest.mark.requirement("S2")

VIEW = {
    "keys": [
        {
            "name": "seal",
            "protects": "the store",
            "since": "2026-03-01T10:20:30.000Z",
            "due": None,
            "due_by_itself": False,
            "kept": ["/keys/seal-until-20260301T102030Z.key"],
        },
        {
            "name": "tokens",
            "protects": "tokens",
            "since": None,
            "due": "2026-04-01T00:00:00.000Z",
            "due_by_itself": True,
            "kept": [],
        },
    ]
}


def asked(control: FakeControl) -> list[object]:
    return [body for method, target, body in control.requests if (method, target) == ("POST", "/v1/changes")]


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (("seal",), {"action": "keys", "keys": ["seal"]}),
        (("seal", "tokens", "seal"), {"action": "keys", "keys": ["seal", "tokens"]}),
        (("all",), {"action": "keys", "keys": ["all"]}),
        (("tokens", "--now"), {"action": "keys", "keys": ["tokens"], "now": True}),
    ],
)
def test_it_asks_for_what_was_named(
    control: FakeControl, idi: Run, arguments: tuple[str, ...], request_: object
) -> None:
    turned = {"type": "step", "state": "done", "step": step("seal", "rotate", "~", "made"), "seconds": 0.1}
    control.changes["keys"] = [turned, {"type": "message", "text": "Copy it."}, {"type": "done", "ok": True}]
    done = idi("keys", "rotate", *arguments)
    assert done.code == 0
    assert asked(control) == [request_]
    assert "seal  made" in done.out
    assert "Copy it." in done.out


@pytest.mark.parametrize("arguments", [("seel",), ("seal", "--now"), ("all", "--now"), ()])
def test_what_cannot_be_asks_nobody(control: FakeControl, idi: Run, arguments: tuple[str, ...]) -> None:
    done = idi("keys", "rotate", *arguments)
    assert done.code == 2
    assert asked(control) == []
    if arguments == ("seel",):
        assert "Did you mean 'seal'?" in done.err


def test_a_list_says_since_when_and_what_is_kept(control: FakeControl, idi: Run) -> None:
    control.answers["GET", "/v1/keys"] = (200, VIEW)
    done = idi("keys", "list")
    assert done.code == 0
    assert "seal    2026-03-01 10:20  -" in done.out
    assert "tokens  unknown           2026-04-01, by itself" in done.out
    assert "/keys/seal-until-20260301T102030Z.key" in done.out + done.err
    assert idi("keys", "list", "--json").document == VIEW
