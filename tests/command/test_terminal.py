"""The live view in a real pseudo-terminal: in place, through resizes, Ctrl-C and Ctrl-Z."""

import os
import re
import signal
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest

from idi.api.place import socket_path
from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, module, status
from tests.command.terminal import Terminal

DRIVER = [sys.executable, str(Path(__file__).with_name("driver.py"))]


def terminal(*arguments: str, scenario: str = "quick", **options: Any) -> Terminal:
    env = {"SCENARIO": scenario, **options.pop("env", {})}
    return Terminal([*DRIVER, *arguments], env=env, **options)


def test_the_table_fills_in_place(folder: Path) -> None:
    with terminal("up", scenario="starting") as screen:
        screen.until("starting")
        screen.until("9 of 9 ready in")
        assert screen.text.count("MODULE") == 1
        assert screen.history == []
        assert [line.split()[0] for line in screen.lines[3:12]] == [
            *("pas", "rame", "jede", "dere", "vtl", "cti", "eat", "sfl", "cam")
        ]
        assert "starting" not in screen.text
        assert "idi call pas /   idi logs   Ctrl-C stops all" in screen.text
        assert screen.screen.cursor.hidden
        screen.send("\x03")
        assert screen.ends() == 130
        assert "nothing is left running." in screen.text
        assert "MODULE" not in screen.text  # what does not run any more is not shown as ready
        assert not screen.screen.cursor.hidden
    assert not os.path.exists(socket_path("platform.yaml", "dev"))


def test_keys_do_not_land_in_the_table(folder: Path) -> None:
    with terminal("up") as screen:
        before = screen.flags
        screen.until("9 of 9 ready in")
        assert not screen.flags & termios.ECHO
        assert screen.flags & termios.NOFLSH  # else the kernel drops half a frame at Ctrl-C
        screen.send("hello\r\r\r")
        screen.feed(1.5)
        assert "hello" not in screen.text
        assert screen.text.count("MODULE") == 1
        screen.send("\x03")
        assert screen.ends() == 130
        assert screen.flags == before


def test_detached_up_leaves_the_table_and_the_terminal_as_it_was(folder: Path, idi: Run) -> None:
    with terminal("up", "--detach") as screen:
        assert screen.ends() == 0
        assert "9 of 9 ready in" in screen.text
        assert "idi down" in screen.text
        assert not screen.screen.cursor.hidden
    idi("down")


def test_what_failed_stays_above_the_table(folder: Path) -> None:
    with terminal("up", scenario="broken", rows=24) as screen:
        screen.until("the rest goes on running")
        lines = screen.lines
        assert "jede-1 failed: exit status 3." in lines
        assert "  | KeyError: 'DATABASE'" in lines
        table = next(at for at, line in enumerate(lines) if line.startswith("junzi"))
        assert lines.index("jede-1 failed: exit status 3.") < table
        assert "8 of 9 ready.   idi call pas /   idi logs jede" in screen.text
        screen.send("\x03")
        assert screen.ends() == 130


@pytest.mark.parametrize("columns", [100, 60, 40])
def test_a_resize_draws_anew_and_only_once(folder: Path, columns: int) -> None:
    with terminal("up", columns=80) as screen:
        screen.until("9 of 9 ready in")
        screen.resize(columns, 20)
        screen.process.send_signal(signal.SIGWINCH)
        screen.feed(0.8)
        screen.resize(columns + 5, 24)
        screen.process.send_signal(signal.SIGWINCH)
        screen.feed(1.5)
        assert screen.text.count("MODULE") == 1
        assert screen.text.count("junzi") == 1
        assert screen.lines[0].startswith("junzi")
        assert re.search(r"9 of 9 ready", screen.text)
        screen.send("\x03")
        assert screen.ends() == 130


def test_a_low_terminal_shows_the_beginning_and_the_end(folder: Path) -> None:
    with terminal("up", rows=8) as screen:
        screen.until("more lines")
        screen.until("9 of 9 ready in")
        screen.feed(1.2)
        assert screen.lines[0].startswith("junzi")
        assert screen.text.count("MODULE") == 1
        screen.send("\x03")
        assert screen.ends() == 130


def test_a_second_ctrl_c_leaves_the_stopping_to_control(folder: Path) -> None:
    with terminal("up", scenario="slow-down") as screen:
        screen.until("2 of 9 ready", timeout=20)
        screen.send("\x03")
        screen.until("stopping")
        screen.send("\x03")
        assert screen.ends() == 130
        assert "goes on by itself" in screen.text
    deadline = time.monotonic() + 10
    while os.path.exists(socket_path("platform.yaml", "dev")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not os.path.exists(socket_path("platform.yaml", "dev"))


def test_a_closed_terminal_stops_everything(folder: Path) -> None:
    with terminal("up") as screen:
        screen.until("9 of 9 ready in")
        screen.signal(signal.SIGHUP)
        assert screen.ends() == 130
    assert not os.path.exists(socket_path("platform.yaml", "dev"))


def test_ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(folder: Path) -> None:
    shell = ["/bin/bash", "--norc", "--noprofile", "-i"]
    env = {"SCENARIO": "quick", "PS1": "ready$ ", "BASH_SILENCE_DEPRECATION_WARNING": "1"}
    with Terminal(shell, env=env) as screen:
        screen.until("ready$")
        screen.send(" ".join([*DRIVER, "up"]) + "\r")
        screen.until("9 of 9 ready in", timeout=20)
        screen.send("\x1a")
        screen.until("Stopped", timeout=5)
        screen.feed(0.3)
        assert not screen.screen.cursor.hidden
        screen.send("echo vis''ible\r")
        screen.until("visible")
        screen.send("fg\r")
        screen.feed(1.5)
        assert screen.screen.cursor.hidden
        assert "9 of 9 ready in" in screen.lines[-1] or "9 of 9 ready in" in screen.text
        screen.send("\x03")
        screen.until("nothing is left running.")
        screen.send("exit\r")
        screen.ends()


@pytest.mark.parametrize("how", ["in the background", "on a dumb terminal"])
def test_where_nothing_can_change_in_place_there_are_lines(folder: Path, idi: Run, how: str) -> None:
    command = " ".join([*DRIVER, "up", "--detach"]) + (" & wait" if how == "in the background" else "")
    shell = ["/bin/bash", "--norc", "--noprofile", "-i"]
    term = "xterm" if how == "in the background" else "dumb"
    with Terminal(shell, env={"SCENARIO": "quick", "PS1": "ready$ ", "TERM": term}) as screen:
        screen.until("ready$")
        screen.send(f"{command}\r")
        screen.until("9 of 9 ready in")
        assert "✓ jede  ready  0.4 s" in screen.text
        assert b"\x1b[?2026h" not in screen.raw
        screen.send("exit\r")
        screen.ends()
    idi("down")


def test_status_in_a_terminal_has_colour_and_none_with_no_color(folder: Path, control: FakeControl) -> None:
    control.status = status([module("jede"), module("cam", "failed", reason="exit status 1")])
    with terminal("status") as screen:
        assert screen.ends() == 0
        assert b"\x1b[1;31mfailed" in screen.raw
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with terminal("status", env=env) as screen:
            assert screen.ends() == 0
            assert b"\x1b" not in screen.raw
            assert "failed" in screen.text


def test_status_watch_follows_and_ctrl_c_ends_only_the_watching(folder: Path, control: FakeControl) -> None:
    control.status = status([module("jede", "starting", reason="connection refused")])
    with terminal("status", "--watch") as screen:
        screen.until("connection refused")
        control.push(status([module("jede")]))
        screen.until("1 of 1 ready.")
        assert "connection refused" not in screen.text
        screen.send("\x03")
        assert screen.ends() == 130
        assert "1 of 1 ready." in screen.text
    assert all(target != "/v1/changes" for _, target, _ in control.requests)


def test_watching_ends_when_control_does(folder: Path, control: FakeControl) -> None:
    with terminal("status", "--watch") as screen:
        screen.until("9 of 9 ready.")
        control.ended.set()
        assert screen.ends() == 3
        assert "was stopped" in screen.text


def test_steps_of_a_change_show_in_place(folder: Path, control: FakeControl) -> None:
    running = {
        "type": "step",
        "state": "running",
        "step": {
            "module": "jede",
            "kind": "ensure",
            "symbol": "+",
            "text": "1 instance of revision b",
            "reason": "",
        },
    }
    control.pause = 0.6
    control.changes["restart"] = [running, {**running, "state": "done", "seconds": 0.6}]
    with terminal("restart", "jede") as screen:
        screen.until("… jede  1 instance")
        assert screen.ends() == 0
        assert "…" not in screen.text
        assert "+ jede  1 instance of revision b  0.6 s" in screen.text
        assert "Done in" in screen.text


def test_every_frame_is_one_synchronised_write_that_hides_nothing_for_ever(folder: Path) -> None:
    with terminal("up") as screen:
        screen.until("9 of 9 ready in")
        screen.send("\x03")
        screen.ends()
        assert screen.raw.count(b"\x1b[?2026h") == screen.raw.count(b"\x1b[?2026l") > 3
        assert screen.raw.count(b"\x1b[?25l") == screen.raw.count(b"\x1b[?25h") == 1
        assert b"\x1b[3J" not in screen.raw
