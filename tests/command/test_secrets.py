"""`idi secrets`: where a value comes from, that it shows nowhere, and what a list says."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import pytest

from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, step
from tests.command.terminal import Terminal

DRIVER = [sys.executable, str(Path(__file__).with_name("driver.py"))]
VIEW = {
    "secrets": [
        {
            "path": "cam/key",
            "version": 3,
            "since": "2026-03-01T10:20:30.000Z",
            "modules": ["cam", "jede"],
            "missing": False,
        },
        {"path": "jede/database", "version": 0, "since": None, "modules": ["jede"], "missing": True},
    ]
}

pytestmark = pytest.mark.requirement("S1", "T4")


def given(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def asked(control: FakeControl) -> list[object]:
    return [body for method, target, body in control.requests if (method, target) == ("POST", "/v1/changes")]


def request(path: str, value: bytes | None = None) -> dict[str, str]:
    found = {"action": "secret", "path": path}
    return found if value is None else found | {"value": base64.b64encode(value).decode()}


@pytest.fixture(autouse=True)
def rolls(control: FakeControl) -> None:
    rolled = {"type": "step", "state": "done", "step": step("cam", "ensure", "~", "1 -> 2"), "seconds": 0.1}
    control.changes["secret"] = [rolled, {"type": "done", "ok": True}]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"geheim\n", b"geheim"),
        (b"geheim\r\n", b"geheim"),
        (b"geheim", b"geheim"),
        (b" two\nlines\n\n", b" two\nlines\n"),
        (b"\xff\0\n", b"\xff\0"),
        (b"x" * 65536 + b"\n", b"x" * 65536),
    ],
    ids=len,
)
def test_a_value_from_standard_input_less_the_last_line_end(
    idi: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch, data: bytes, value: bytes
) -> None:
    given(monkeypatch, data)
    found = idi("secrets", "set", "cam/key")
    assert found.code == 0, found.err
    assert "Done in" in found.out
    assert asked(control) == [request("cam/key", value)]
    assert all("geheim" not in target for _, target, _ in control.requests)


@pytest.mark.parametrize("command", [["set"], ["rotate"]])
def test_a_value_from_a_file_to_the_last_byte(
    idi: Run, control: FakeControl, folder: Path, command: list[str]
) -> None:
    (folder / "key.pem").write_bytes(b"PEM\n\n")
    assert idi("secrets", *command, "cam/key", "--from-file", "key.pem").code == 0
    assert asked(control) == [request("cam/key", b"PEM\n\n")]


def test_rotate_without_more_leaves_the_value_to_control(
    idi: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    given(monkeypatch, b"not read")
    assert idi("secrets", "rotate", "cam/key").code == 0
    assert asked(control) == [request("cam/key")]
    assert idi("secrets", "rotate", "cam/key", "--ask").code == 0
    assert asked(control)[1:] == [request("cam/key", b"not read")]


@pytest.mark.parametrize(
    ("data", "why"), [(b"", "is empty"), (b"\n", "is empty"), (b"x" * 65537, "larger than 64 KiB")], ids=len
)
def test_what_is_no_value(
    idi: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch, data: bytes, why: str
) -> None:
    given(monkeypatch, data)
    found = idi("secrets", "set", "cam/key")
    assert (found.code, asked(control)) == (2, [])
    assert why in found.err


def test_a_value_is_no_argument(idi: Run, control: FakeControl) -> None:
    found = idi("secrets", "set", "cam/key", "geheim")
    assert (found.code, asked(control)) == (2, [])


def test_what_fails_is_said(idi: Run, control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> None:
    control.changes["secret"] = [{"type": "done", "ok": False, "reason": "OpenBao is sealed."}]
    given(monkeypatch, b"geheim")
    found = idi("secrets", "set", "cam/key")
    assert found.code == 1
    assert "OpenBao is sealed." in found.err
    assert "geheim" not in found.out + found.err


def test_the_list(idi: Run, control: FakeControl) -> None:
    control.answers["GET", "/v1/secrets"] = (200, VIEW)
    assert idi("secrets", "list").out.splitlines() == [
        "PATH           VERSION  SET               USED BY",
        "cam/key        3        2026-03-01 10:20  cam, jede",
        "jede/database  missing  -                 jede",
        "",
        "idi secrets set jede/database sets what is missing.",
    ]
    assert idi("secrets", "list", "--json").document == VIEW
    control.answers["GET", "/v1/secrets"] = (200, {"secrets": []})
    assert idi("secrets", "list").out == "No secret is set, and no module declares one.\n"


def test_a_typed_value_is_asked_twice_and_never_shown(control: FakeControl) -> None:
    with Terminal([*DRIVER, "secrets", "set", "cam/key"]) as screen:
        screen.until("Value of cam/key (not shown):")
        screen.send("geheim\r")
        screen.until("The same again:")
        screen.send("geheim\r")
        screen.until("Done in")
        assert screen.ends() == 0
        assert b"geheim" not in screen.raw
    assert asked(control) == [request("cam/key", b"geheim")]


def test_a_typing_error_sets_nothing(control: FakeControl) -> None:
    with Terminal([*DRIVER, "secrets", "rotate", "cam/key", "--ask"]) as screen:
        screen.until("Value of cam/key (not shown):")
        screen.send("geheim\r")
        screen.until("The same again:")
        screen.send("geheum\r")
        screen.until("The two were not the same: nothing was set.")
        assert screen.ends() == 2
    assert asked(control) == []
