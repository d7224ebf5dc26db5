"""`idi run` and `idi env`: whose terminal it is, what is said where, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, instance, module, status
from tests.command.terminal import Terminal

IDI = [sys.executable, "-c", "import sys; from idi.cli.main import main; sys.exit(main())"]
pytestmark = pytest.mark.requirement("D1")


def view(**more: Any) -> dict[str, Any]:
    return {
        "module": "jede",
        "instance": "jede-2",
        "by": "ann",
        "state": "ready",
        "reason": "",
        "standing": True,
        "over": "",
        "ready": 0,
        "ended": False,
        "down": False,
        **more,
    }


class Lending(FakeControl):
    """A control that lends jede-2; the run ends when the command has."""

    def __init__(self) -> None:
        super().__init__()
        self.lend()
        self.views = [
            view(state="starting", standing=False, reason="waiting for /ready (1st try: refused)"),
            view(),
        ]
        self.taken = 0
        self.last = view(state="gone", standing=False, ended=True, ready=1)

    def lend(self, **more: Any) -> None:
        lent = {**instance("jede", 2, "starting", 0.0, 20022), "by": "ann"}
        one = module("jede")
        one["instances"] = [*one["instances"], lent]
        self.status = status([one, module("cam")], **more)
        variables = [("PORT", "20022"), ("IDI_MODULE", "jede"), ("TOKEN", "it's\nsecret")]
        self.answers["GET", "/v1/environment"] = (
            200,
            {
                "module": "jede",
                "instance": "jede-2",
                "variables": [{"name": n, "value": v, "secret": n == "TOKEN"} for n, v in variables],
            },
        )

    def answer(self, method: str, target: str, body: Any) -> Iterator[tuple[int, Any]] | tuple[int, Any]:
        if (method, target) == ("PUT", "/v1/runs/jede-2"):
            self.requests.append((method, target, body))
            self.taken = body["pid"]
            return 200, {}
        if (method, target) == ("GET", "/v1/runs/jede-2"):
            return self.run()
        return super().answer(method, target, body)

    def run(self) -> Iterator[tuple[int, Any]]:
        for one in self.views:
            yield 200, one
        while alive(self.taken) and not self.ended.is_set():
            self.ended.wait(0.02)
        yield 200, self.last


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def control(folder: Path) -> Iterator[FakeControl]:
    from idi.api.place import socket_path
    from tests.command.fake_control import serving

    with serving(Path(socket_path("platform.yaml", "dev")), Lending()) as found:
        yield found


def command(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*IDI, *words], capture_output=True, text=True, timeout=60, check=False, **{"input": "", **more}
    )


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("pass", 0),
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 137),
    ],
)
def test_the_exit_code_is_the_commands_own(control: FakeControl, source: str, code: int) -> None:
    done = command("run", "jede", "--", sys.executable, "-c", source)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Given back: 1 instance of jede ready." in done.stderr
    assert next(body for _, path, body in control.requests if path == "/v1/changes") == {
        "action": "run",
        "module": "jede",
    }


def test_stdout_and_stdin_are_the_commands(control: FakeControl) -> None:
    source = "import os, sys; print(sys.stdin.read(), os.environ['PORT'], os.environ['MINE'], sys.argv[1:])"
    words = ["run", "jede", "--", sys.executable, "-c", source, "--json", "--", "--debug"]
    done = command(*words, input="typed", env={**os.environ, "MINE": "too", "PORT": "1"})
    assert done.stdout == "typed 20022 too ['--json', '--', '--debug']\n"
    assert "idi: " in done.stderr
    assert "secret" not in done.stderr


def test_what_cannot_be_started(control: FakeControl, idi: Run, folder: Path) -> None:
    found = idi("run", "jede", "--", "no-such-command")
    assert (found.code, found.out) == (127, "")
    assert "There is no command 'no-such-command'." in found.err
    (folder / "plain").write_text("")
    assert idi("run", "jede", "--", "./plain").code == 126
    assert idi("run", "jede").code == 2
    assert idi("run", "jdee", "--", "true").code == 2
    assert not [path for _, path, _ in control.requests if path == "/v1/changes"]


def test_without_a_platform(folder: Path, idi: Run) -> None:
    assert idi("run", "jede", "--", "true").code == 3
    assert idi("env", "jede").code == 3


def test_it_says_once_what_is_waited_for(control: FakeControl, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(control, Lending)
    waiting = view(state="starting", standing=False, reason="waiting for /ready (9th try: refused)")
    control.views = [waiting, waiting]
    done = command("run", "jede", "--", "sleep", "4")
    assert done.stderr.count("jede-2 is not ready: waiting for /ready (9th try: refused)") == 1
    assert "ours goes on serving" in done.stderr


def test_ctrl_c_is_the_commands_and_the_terminal_is_put_back(control: FakeControl) -> None:
    source = (
        "import signal, sys, termios, time\n"
        "signal.signal(signal.SIGINT, lambda *_: (print('it was me', flush=True), sys.exit(5)))\n"
        "modes = termios.tcgetattr(0); modes[3] &= ~termios.ECHO; termios.tcsetattr(0, termios.TCSANOW, modes)\n"
        "print('begun', flush=True)\n"
        "time.sleep(60)\n"
    )
    with Terminal([*IDI, "run", "jede", "--", sys.executable, "-c", source]) as terminal:
        before = terminal.flags
        terminal.until("begun")
        terminal.until("stands for one of jede's own")
        assert terminal.flags != before
        terminal.send("\x03")
        assert terminal.ends() == 5
        assert "it was me" in terminal.text
        assert terminal.flags == before


def test_to_end_idi_gives_back_first(control: FakeControl) -> None:
    with Terminal([*IDI, "run", "jede", "--", "sleep", "60"]) as terminal:
        terminal.until("stands for one of jede's own")
        assert isinstance(control, Lending)
        control.changes["give-back"] = [{"type": "done", "ok": False, "reason": "jede-1 does not start"}]
        terminal.signal(signal.SIGTERM)
        assert terminal.ends() == 143, "control could not, so the command gets the signal"
        assert "jede-1 does not start" in terminal.text
    assert [body["action"] for _, path, body in control.requests if path == "/v1/changes"] == [
        "run",
        "give-back",
    ]


def test_env_quotes_and_hides(control: FakeControl, idi: Run) -> None:
    shown = idi("env", "jede")
    assert shown.out == "export PORT=20022\nexport IDI_MODULE=jede\nexport TOKEN='it'\"'\"'s\nsecret'\n"
    done = subprocess.run(
        ["sh", "-c", f'{shown.out}printf %s "$TOKEN"'], capture_output=True, text=True, check=True
    )
    assert done.stdout == "it's\nsecret"
    assert control.requests[-1][1] == "/v1/environment?module=jede"
    plain = idi("env", "jede", "--plain", "--reveal")
    assert control.requests[-1][1] == "/v1/environment?module=jede&reveal=1"
    assert plain.out == "PORT=20022\nIDI_MODULE=jede\n"
    assert "TOKEN left out: more than one line" in plain.err
    document = idi("env", "jede", "--json").document
    for variable in document["variables"]:
        variable["value"] = None
    control.answers["GET", "/v1/environment"] = 200, {**document, "instance": None}
    hidden = idi("env", "jede")
    assert hidden.out == ""
    assert "only one has PORT, IDI_MODULE" in hidden.err
    assert "1 secret is not shown (TOKEN); --reveal shows them." in hidden.err
