"""`up` and `down` without a terminal: who is in charge, what is said, what is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from idi.api.place import place, socket_path
from idi.cli import launch
from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, step

DRIVER = str(Path(__file__).with_name("driver.py"))


def driver(*arguments: str, scenario: str = "quick", **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, DRIVER, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SCENARIO": scenario, "PYTHONUNBUFFERED": "1"},
        **options,
    )


def finish(process: subprocess.Popen[str], timeout: float = 20.0) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


@contextmanager
def until(process: subprocess.Popen[str], wanted: str) -> Iterator[list[str]]:
    """The lines until one has these words; the process is killed in the end, whatever happens."""
    assert process.stdout
    lines: list[str] = []
    try:
        while not lines or wanted not in lines[-1]:
            line = process.stdout.readline()
            assert line, f"{wanted!r} never came: {lines}"
            lines.append(line)
        yield lines
    finally:
        process.kill()
        process.communicate()


def running() -> bool:
    return os.path.exists(socket_path("platform.yaml", "dev"))


def gone(timeout: float = 5.0) -> bool:
    deadline = time.monotonic() + timeout
    while running() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not running()


def test_detached_up_ends_when_all_is_ready_and_leaves_it_running(idi: Run) -> None:
    code, out, err = finish(driver("up", "--detach"))
    assert (code, err) == (0, "")
    assert "  ✓ jede  ready  0.4 s" in out
    assert out.splitlines()[-1].startswith("9 of 9 ready in ")
    assert "http://127.0.0.1:8080" in out.splitlines()[-1]
    assert "\x1b" not in out
    assert idi("status").code == 0
    found = idi("down")
    assert found.code == 0
    assert "nothing is left running" in found.out
    assert not running()  # and not a moment later: it waited for control's own end
    again = idi("down")
    assert (again.code, again.out) == (0, "platform.yaml (dev) is not running: nothing to stop.\n")


def test_the_folders_are_private(idi: Run) -> None:
    finish(driver("up", "--detach"))
    _, _, state, runtime, _ = place("platform.yaml", "dev")
    for folder in (os.path.dirname(state), state, f"{state}/logs", runtime):
        assert os.stat(folder).st_mode & 0o777 == 0o700
    idi("down")


def test_detached_up_with_json_is_lines_of_progress(idi: Run) -> None:
    code, out, err = finish(driver("up", "--detach", "--json"))
    documents = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert documents[0]["type"] == "started"
    assert documents[-1] == {"type": "done", "ok": True}
    assert idi("down", "--json").documents[-1]["ok"] is True


def test_detached_up_that_fails_is_1_leaves_the_rest_and_says_how_to_see(idi: Run) -> None:
    code, out, err = finish(driver("up", "--detach", scenario="broken"))
    assert code == 1
    assert "jede-1 failed: exit status 3." in out
    assert "  | KeyError: 'DATABASE'" in out
    assert err == (
        "Starting failed.\njede failed.\nThe rest goes on running: idi status, idi logs; idi down stops it.\n"
    )
    assert idi("status").code == 0
    idi("down")


def test_a_start_that_leaves_no_module_says_what_goes_on(idi: Run) -> None:
    code, out, err = finish(driver("up", "--detach", scenario="lost"))
    assert code == 1
    assert "jede-1 failed: ended with exit code 127: pyhton was not found; 5 times in a row." in out
    assert "  | /bin/sh: 1: exec: pyhton: not found  (5 times)" in out
    assert "  Is pyhton spelt right?" in out
    assert err == (
        "Starting failed.\njede failed.\nNo module is ready; control, openbao, gateway go on running: "
        "idi status, idi logs; idi down stops it.\n"
    )
    found = idi("status")
    assert "ended with exit code 127: pyhton was not found" in found.out
    assert found.out.splitlines()[-1] == "0 of 1 ready.   idi logs jede   idi down"  # jede would not answer
    idi("down")
    code, _, err = finish(driver("up", scenario="lost"))
    assert (code, err) == (1, "Nothing could be started, so everything was stopped again.\njede failed.\n")
    assert gone()


@pytest.mark.parametrize("arguments", [["up"], ["up", "--detach"]])
def test_a_start_that_made_nothing_leaves_nothing(folder: Path, arguments: list[str]) -> None:
    code, _, err = finish(driver(*arguments, scenario="refusing"))
    said = "Nothing could be started, so everything was stopped again.\nThe issuer does not answer.\n"
    assert (code, err) == (1, said)
    assert gone()


def test_the_way_out_of_a_command_that_is_not_there_is_in_the_document(idi: Run) -> None:
    code, _, err = finish(driver("up", "--detach", "--json", scenario="lost"))
    document = json.loads(err)
    assert code == 1
    assert "ended with exit code 127: pyhton was not found" in document["detail"]
    assert document["lines"][-1] == "/bin/sh: 1: exec: pyhton: not found"
    assert document["way_out"].startswith("Is pyhton spelt right?")
    assert document["way_out"].endswith("idi down stops it.")
    idi("down")


def test_foreground_up_tells_events_and_its_end_is_the_platforms_end(idi: Run) -> None:
    process = driver("up", scenario="starting")
    with until(process, "9 of 9 ready") as lines:
        assert "  ✓ cam  ready  0.4 s\n" in lines
        assert running()
        process.send_signal(signal.SIGINT)
        code, out, err = finish(process)
    assert (code, err) == (130, "")
    assert out.splitlines()[0] == "Stopping."
    assert "nothing is left running." in out.splitlines()[-1]
    assert gone()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_while_it_starts_cleans_up(folder: Path, number: signal.Signals) -> None:
    process = driver("up", scenario="slow")
    with until(process, "openbao"):
        process.send_signal(number)
        assert finish(process)[0] == 130
    assert gone()


def test_detached_up_that_is_interrupted_cleans_up_too(folder: Path) -> None:
    process = driver("up", "--detach", scenario="slow")
    with until(process, "openbao"):
        process.send_signal(signal.SIGINT)
        assert finish(process)[0] == 130
    assert gone()


def test_a_second_up_hands_in_the_declaration_and_goes(idi: Run, control: FakeControl, folder: Path) -> None:
    control.changes["up"] = [{"type": "message", "text": "Nothing to change."}]
    found = idi("up")
    assert (found.code, found.out, found.err) == (0, "Nothing to change.\n", "")
    body = next(body for _, target, body in control.requests if target == "/v1/changes")
    assert body == {"action": "up", "text": (folder / "platform.yaml").read_text(), "file": "platform.yaml"}
    gone_step = {
        "type": "step",
        "state": "done",
        "step": step("cam", "remove", "-", "remove", "no longer declared"),
    }
    control.changes["up"] = [gone_step]
    changed = idi("up", "--detach")
    assert "  - cam  remove" in changed.out
    assert "(no longer declared)" in changed.out


def test_ports_of_what_runs_cannot_be_changed_by_a_second_up(idi: Run, control: FakeControl) -> None:
    assert idi("up", "--gateway-port", "8080").code == 0
    found = idi("up", "--gateway-port", "9080")
    assert found.code == 2
    assert "idi down, then up with --gateway-port 9080." in found.err


def test_an_invalid_declaration_starts_nothing(folder: Path) -> None:
    (folder / "platform.yaml").write_text("platform: x\nmodulez: {}\n")
    code, out, err = finish(driver("up"))
    assert code == 2
    assert err.startswith("platform.yaml:2:1: ")
    assert out == ""
    assert not (folder / ".idi").exists()


def test_a_taken_port_names_its_holder_and_starts_nothing(folder: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        code, _, err = finish(driver("up", "--gateway-port", str(number)))
    assert code == 1
    assert f"Port {number}, which the gateway needs, is held by" in err
    assert f"(pid {os.getpid()})" in err
    assert "idi up --gateway-port" in err
    assert not (folder / ".idi").exists()


def test_up_ends_when_the_platform_is_stopped_from_elsewhere(idi: Run) -> None:
    process = driver("up")
    with until(process, "9 of 9 ready"):
        assert idi("down").code == 0
        code, out, err = finish(process)
    assert (code, err) == (0, "")
    assert "Stopped from elsewhere; nothing is left running." in out


def test_up_says_so_when_control_is_killed_and_the_rest_goes_on(idi: Run, folder: Path) -> None:
    """What goes on is seen by its marker, so here a process carries it."""
    marker = f"{place('platform.yaml', 'dev')[1]}:jede-1:module"
    process = driver("up")
    with until(process, "9 of 9 ready"):
        (folder / ".idi/dev/seats").mkdir(parents=True)
        (folder / ".idi/dev/seats/jede-1.json").write_text("{}")
        left = subprocess.Popen(
            ["sleep", "30"], env={**os.environ, "IDI_SEAT": marker}, start_new_session=True
        )
        try:
            os.kill(idi("status", "--json").document["control"]["pid"], signal.SIGKILL)
            code, _, err = finish(process)
            found = idi("status")
        finally:
            left.kill()
            left.wait()
    assert code == 1
    assert "Control ended, but what it started goes on running." in err
    assert found.code == 3
    assert "what it started goes on" in found.err


# --- starting control: what can go wrong ------------------------------------------------------------------


def starting(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Instead of control, this Python."""

    def spawn(paths: Any, *_: object) -> subprocess.Popen[bytes]:
        with open(paths.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, str(paths.state), str(paths.socket)], stderr=log
            )

    monkeypatch.setattr(launch, "spawn", spawn)


def test_why_control_did_not_start_is_its_own_words(idi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    starting(
        monkeypatch,
        "import json,sys; open(sys.argv[1]+'/start-error.json','w').write(json.dumps("
        "{'message':'The journal is damaged.','way_out':'Set it aside.','exit':1})); sys.exit(1)",
    )
    found = idi("up", "--detach")
    assert (found.code, found.err) == (1, "The journal is damaged.\nSet it aside.\n")


def test_control_that_dies_without_a_word_shows_the_end_of_its_log(
    idi: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting(monkeypatch, "import sys; sys.exit('ImportError: no such thing')")
    found = idi("up", "--detach")
    assert found.code == 1
    assert "Control ended while it was starting (status 1)." in found.err
    assert "  | ImportError: no such thing" in found.err
    assert ".idi/dev/logs/control.log" in found.err


def test_who_does_not_get_the_lock_attaches_to_who_has_it(idi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket comes up after our own control ended with 75: it is another's."""
    fake = str(Path(__file__).with_name("fake_control.py"))
    starting(
        monkeypatch,
        f"import subprocess,sys; subprocess.Popen([sys.executable, {fake!r}, sys.argv[2], 'quick'],"
        "start_new_session=True); sys.exit(75)",
    )
    found = idi("up")
    assert found.code == 0  # and it does not stay: the other one is in charge
    assert idi("down").code == 0


def test_control_that_never_answers_is_ended(idi: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "WAIT_S", 0.3)
    starting(monkeypatch, "import time; time.sleep(60)")
    found = idi("up", "--detach")
    assert found.code == 1
    assert "did not answer within" in found.err


def test_a_refused_change_takes_the_control_down_that_was_started_for_it(
    idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.command.fake_control import Server  # a control whose first answer is a refusal

    control = FakeControl()
    control.ends_after_down = True
    original = control.answer

    def answer(method: str, target: str, body: Any) -> Any:
        if target == "/v1/changes" and body["action"] == "up":
            control.requests.append((method, target, body))
            detail = {"title": "Refused", "status": 409, "detail": "Not on a Sunday.", "way_out": "Wait."}
            return 409, {"type": "about:blank", **detail}
        return original(method, target, body)

    monkeypatch.setattr(control, "answer", answer)
    servers: list[Server] = []

    def spawn(paths: Any, *_: object) -> subprocess.Popen[bytes]:
        import threading

        process = subprocess.Popen(["sleep", "0.5"])
        control.status["control"]["pid"] = process.pid
        servers.append(Server(str(paths.socket), control))
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        return process

    monkeypatch.setattr(launch, "spawn", spawn)
    found = idi("up")
    servers[0].shutdown()
    servers[0].server_close()
    assert found.code == 1
    assert found.err == "Not on a Sunday.\nWait.\n"
    assert found.out == ""
    assert [body["action"] for _, _, body in control.requests if body] == ["up", "down"]


def test_after_a_crash_control_listens_where_it_did(folder: Path) -> None:
    from idi.api.paths import paths_for
    from idi.cli.invocation import Invocation
    from idi.cli.main import parse

    invocation = Invocation("up", parse("up", [], []))
    paths = paths_for("platform.yaml", "dev")
    paths.state.mkdir(parents=True)
    launch.Ports(invocation, left=False, gateway=9080).write(paths)
    assert launch.Ports(invocation, left=True).gateway == 9080
    assert launch.Ports(invocation, left=True, gateway=7000).gateway == 7000
    assert launch.Ports(invocation, left=False).gateway == 8080
    launch.file_of_ports(paths).write_text("[garbage")
    assert launch.Ports(invocation, left=True).gateway == 8080


def test_down_starts_control_where_only_processes_are_left(
    idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / ".idi/dev/seats").mkdir(parents=True)
    (folder / ".idi/dev/seats/jede-1.json").write_text("{}")
    monkeypatch.setattr("idi.api.left_over.left_over", lambda *_: [("jede-1 (module)", 7)])
    fake = str(Path(__file__).with_name("fake_control.py"))
    starting(
        monkeypatch,
        f"import os,sys; os.execv(sys.executable, [sys.executable, {fake!r}, sys.argv[2], 'quick'])",
    )
    found = idi("down")
    assert found.code == 0
    assert "starting it to stop that" in found.err
    assert "nothing is left running" in found.out
