"""Commands that need no control: logs, audit, doctor, completion."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idi.api.place import place
from idi.cli.completion import suggestions
from idi.cli.ports import holder, is_free, next_free
from idi.parts.store.interface import Actor, Step
from idi.parts.store.sqlite import schema
from idi.parts.store.sqlite.store import open_store
from tests.command.conftest import Run
from tests.command.fake_control import FakeControl, module, status
from tests.command.terminal import Terminal
from tests.support.scale import need_part

IDI = [sys.executable, "-c", "import sys; from idi.cli.main import main; sys.exit(main())"]


# --- logs -----------------------------------------------------------------------------------------------


@pytest.fixture
def logs(folder: Path) -> Path:
    found = folder / ".idi" / "dev" / "logs"
    found.mkdir(parents=True)
    (found / "jede-1.log").write_text("one\nan error here\n")
    (found / "jede-2.log").write_text("two\n")
    (found / "cam-1.log").write_text("three \x1b[31mred\x1b[0m \x1b[2Jgone\x07\n")
    (found / "cam-1.sidecar.log").write_text("sidecar\n")
    (found / "control.log").write_text("control\n")
    return found


def test_logs_are_the_modules_merged_and_aligned(idi: Run, logs: Path) -> None:
    found = idi("logs")
    assert found.code == 0
    assert sorted(found.out.splitlines()) == sorted(
        ["jede-1 | one", "jede-1 | an error here", "jede-2 | two", "cam-1  | three red gone"]
    )


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (["jede"], {"one", "an error here", "two"}),
        (["jede-2", "control"], {"two", "control"}),
        (["cam-1.sidecar"], {"sidecar"}),
        (["--grep", "err|two"], {"an error here", "two"}),
        (["jede", "--lines", "1"], {"two"}),
        (["--since", "1h"], {"one", "an error here", "two", "three red gone"}),
    ],
)
def test_logs_are_chosen(idi: Run, logs: Path, arguments: list[str], lines: set[str]) -> None:
    found = idi("logs", *arguments)
    assert {line.partition("| ")[2] for line in found.out.splitlines()} == lines


def test_logs_with_json_are_documents(idi: Run, logs: Path) -> None:
    documents = idi("logs", "jede-2", "--json").documents
    assert [d["line"] for d in documents] == ["two"]
    assert documents[0]["module"] == "jede"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", documents[0]["time"])


def test_an_unknown_source_is_2_with_the_nearest(idi: Run, logs: Path) -> None:
    found = idi("logs", "jedde")
    assert found.code == 2
    assert "Did you mean 'jede'?" in found.err
    assert idi("logs", "--grep", "(").code == 2


def test_logs_of_what_never_ran_is_3(idi: Run, folder: Path) -> None:
    assert idi("logs").code == 3
    assert not (folder / ".idi").exists()


def test_logs_follow_what_comes_also_from_new_instances(logs: Path) -> None:
    with subprocess.Popen([*IDI, "logs", "jede", "--follow"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert {process.stdout.readline() for _ in range(3)} == {
            "jede-1 | one\n",
            "jede-1 | an error here\n",
            "jede-2 | two\n",
        }
        with open(logs / "jede-1.log", "a") as file:
            file.write("more\n")
        assert process.stdout.readline() == "jede-1 | more\n"
        (logs / "jede-3.log").write_text("new\n")
        assert process.stdout.readline() == "jede-3 | new\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_following_begins_with_the_last_lines_of_each_module(logs: Path) -> None:
    (logs / "jede-1.log").write_text("".join(f"{n}\n" for n in range(1, 31)))
    (logs / "jede-2.log").write_text("")

    def first(*arguments: str, count: int) -> set[str]:
        command = [*IDI, "logs", "--follow", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            found = {process.stdout.readline().partition("| ")[2].strip() for _ in range(count)}
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read()
            assert process.wait(10) == 130
        assert rest == ""
        return found

    tail = {str(n) for n in range(21, 31)}
    assert first(count=11) == {*tail, "three red gone"}
    assert first("--lines", "2", "jede", count=2) == {"29", "30"}
    assert first("--since", "1h", "jede", count=30) == {str(n) for n in range(1, 31)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--lines", "2"], ["199998", "199999"]),
        (["--lines", "2", "--grep", "7$"], ["199987", "199997"]),
        (["--lines", "2", "--since", "1h", "jede"], ["199998", "199999"]),
    ],
)
def test_the_last_lines_of_a_large_log_cost_what_they_are(
    idi: Run, logs: Path, arguments: list[str], said: list[str]
) -> None:
    counts = Path("/proc/self/io")
    if not counts.exists():
        pytest.skip("this kernel does not count what a process reads")

    def read_so_far() -> int:
        return int(counts.read_text().split()[1])

    (logs / "jede-1.log").write_text("".join(f"{'x' * 40} {n:06d}\n" for n in range(200_000)))
    os.utime(logs / "jede-1.log", (time.time() + 1, time.time() + 1))
    idi("logs", "jede-2")  # what is imported is read as well
    before = read_so_far()
    found = idi("logs", *arguments)
    assert read_so_far() - before < 500_000
    assert [line[-6:] for line in found.out.splitlines()] == said


def test_each_module_has_a_colour_on_a_terminal_and_its_own_colours_stay(logs: Path) -> None:
    with Terminal([*IDI, "logs"]) as screen:
        assert screen.ends() == 0
        assert len(set(re.findall(rb"\x1b\[(3\dm)(?:jede|cam)-\d", screen.raw))) == 2
        assert b"\x1b[31mred" in screen.raw
        assert b"\x1b[2J" not in screen.raw


# --- audit ----------------------------------------------------------------------------------------------


@pytest.fixture
def journal(folder: Path) -> Path:
    """A real journal with two changes in it."""
    _, _, state, _, keys = place("platform.yaml", "dev")

    async def write() -> None:
        async with open_store(
            Path(state) / "journal", Path(keys), origin="idi/test", clock=time.time
        ) as store:
            actor = Actor("peer", "anna", uid=1, pid=2)
            change = await store.begin(actor, "up", {"file": "platform.yaml"})
            steps = [
                Step("ensure", "jede", {"what": "2 instances"}),
                Step("remove", "cam", {"what": "remove"}),
            ]
            first, second = await store.intend(change, steps)
            await store.outcome(first, True)
            await store.outcome(second, False, {"reason": "it would not go"})
            await store.finish(change, False, "1 of 2 failed")
            await store.begin(actor, "scale", {"modules": {"jede": 3}})

    asyncio.run(write())
    return Path(state) / "journal"


def test_the_audit_log_names_who_and_what(idi: Run, journal: Path) -> None:
    found = idi("audit", "list")
    assert found.code == 0
    assert "anna" in found.out
    assert "✓ jede  2 instances" in found.out
    assert "✗ cam  remove; it would not go" in found.out
    assert "… " not in found.out  # every step has ended
    assert "scale jede=3\n" in found.out
    documents = idi("audit", "list", "--json").documents
    assert [document["phase"] for document in documents][-2:] == ["finish", "begin"]
    assert documents[0]["index"] == 0
    assert {d["subject"] for d in idi("audit", "list", "--module", "jede", "--json").documents} == {"jede"}
    assert len(idi("audit", "list", "--limit", "2", "--json").documents) == 2


def test_the_audit_log_verifies_and_a_spoilt_one_does_not(idi: Run, journal: Path) -> None:
    found = idi("audit", "verify")
    assert found.code == 0
    assert found.out.startswith("The audit log holds: ")
    assert idi("audit", "verify", "--json").document["holds"] is True
    with sqlite3.connect(journal / schema.FILE) as database:
        spoil = (
            "UPDATE entry SET data = CAST(replace(CAST(data AS TEXT), 'anna', 'otto') AS BLOB) WHERE idx = 1"
        )
        assert database.execute(spoil).rowcount == 1
    database.close()
    spoilt = idi("audit", "verify")
    assert spoilt.code == 1
    assert "✗ entry 1" in spoilt.out
    assert "does not hold" in spoilt.err
    document = idi("audit", "verify", "--json")
    assert document.code == 1
    assert document.document["findings"]
    assert document.err == ""


def test_the_newest_of_the_audit_log_are_shown_and_how_to_see_the_rest(idi: Run, journal: Path) -> None:
    found = idi("audit", "list", "--limit", "3")
    head, *lines, more, last = found.out.splitlines()
    assert head == "    N  TIME (UTC)           WHO   WHAT"
    assert [line.split()[0] for line in lines] == ["5", "6", "7"]
    assert more == "5 earlier entries are not shown: idi audit list --limit 8"
    assert last == "The log has 8 entries, signed; idi audit verify checks them."
    assert len(idi("audit", "list", "--limit", "8").out.splitlines()) == 8  # two steps have one line each
    assert idi("audit", "list", "--limit", "7").out.count("not shown") == 0
    assert idi("audit", "list", "--module", "jede", "--limit", "1").out.count("not shown") == 0
    found = idi("audit", "list", "--json", "--module", "jede", "--limit", "1")
    assert len(found.documents) == 1
    assert found.err == "1 earlier entry is not shown: idi audit list --module jede --limit 2\n"


def test_an_entry_is_proved_to_who_has_only_the_key(idi: Run, journal: Path) -> None:
    found = idi("audit", "prove", "1")
    assert found.code == 0
    assert found.out.startswith("c2sp.org/tlog-proof@v1\nindex 1\n")
    entry = idi("audit", "prove", "1", "--entry").out
    assert json.loads(entry)["index"] == 1
    assert idi("audit", "prove", "1", "--json").document["entry"] == json.loads(entry)
    assert idi("audit", "prove", "99").code == 2


@pytest.mark.parametrize("what", [["list"], ["verify"], ["prove", "0"]])
def test_no_journal_is_3(idi: Run, folder: Path, what: list[str]) -> None:
    assert idi("audit", *what).code == 3
    assert not (folder / ".idi").exists()


# --- doctor ---------------------------------------------------------------------------------------------


def findings(idi: Run) -> dict[str, dict[str, str]]:
    found = idi("doctor", "--json")
    document = found.document
    assert found.code == (0 if document["ok"] else 1)
    assert document["ok"] == all(check["state"] != "fail" for check in document["checks"])
    return {check["name"]: check for check in document["checks"]}


def test_doctor_checks_everything_and_changes_nothing(idi: Run, folder: Path) -> None:
    found = findings(idi)
    for name in (
        "python",
        "system",
        "kernel",
        "envoy",
        "openbao",
        "open files",
        "clock",
        "declaration",
        "control",
    ):
        assert found[name]["detail"]
    assert {"state", "runtime", "keys", "disk", "port 8080"} <= set(found)
    assert "Apache-2.0" in found["envoy"]["detail"]
    assert "MPL-2.0" in found["openbao"]["detail"]
    assert list(folder.iterdir()) == [folder / "platform.yaml"]


def test_doctor_names_what_is_wrong_with_its_remedy(
    idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "platform.yaml").write_text("platform: x\nmodulez: {}\n")
    (folder / ".idi").mkdir()
    os.symlink("/tmp", folder / ".idi" / "dev")
    monkeypatch.setenv("IDI_ENVOY", "/nowhere/envoy")
    monkeypatch.setattr("idi.cli.checks.platform.PORTS", (("gateway", taken := 0),))
    del taken
    found = findings(idi)
    assert found["declaration"]["state"] == "fail"
    assert "platform.yaml:2:1" in found["declaration"]["detail"]
    assert "is a link" in found["state"]["detail"]
    assert found["envoy"]["state"] == "fail"
    assert "IDI_ENVOY" in found["envoy"]["detail"]
    assert found["envoy"]["remedy"]
    text = idi("doctor")
    assert text.code == 1
    assert "FAIL  envoy" in text.out
    assert "checks failed." in text.out


def test_a_port_in_use_names_its_holder(idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        number = listening.getsockname()[1]
        assert not is_free(number)
        assert holder(number)[0] == os.getpid()
        assert next_free(number) > number
        monkeypatch.setattr("idi.cli.checks.platform.PORTS", (("gateway", number),))
        found = findings(idi)[f"port {number}"]
    assert found["state"] == "fail"
    assert f"(pid {os.getpid()})" in found["detail"]
    assert "--gateway-port" in found["remedy"]
    assert is_free(number)
    assert holder(number) == (0, "")


def test_doctor_of_what_runs(idi: Run, control: FakeControl) -> None:
    control.status = status([module("jede"), module("cam", "failed", reason="x")])
    found = findings(idi)["control"]
    assert found["state"] == "warn"
    assert "1 of 2 modules ready" in found["detail"]


@pytest.mark.requirement("K4")
def test_doctor_of_a_cluster_that_is_not_there(
    idi: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without engines, ports and folders, which an environment on a cluster has no use for."""
    (folder / "platform.yaml").write_text("platform: x\nmodules:\n  a: {image: i}\n")
    monkeypatch.setenv("KUBECONFIG", str(folder / "none"))
    monkeypatch.setenv("IDI_HELM", str(folder / "none"))
    found = idi("doctor", "--env", "staging", "--json")
    checks = {check["name"]: check for check in found.document["checks"]}
    assert found.code == 1
    assert set(checks) == {"python", "system", "clock", "kubectl", "helm", "declaration", "cluster"}
    assert checks["kubectl"]["state"] == "ok"
    assert "IDI_HELM" in checks["helm"]["detail"]
    assert "no context staging" in checks["cluster"]["detail"]
    assert "KUBECONFIG" in checks["cluster"]["remedy"]
    assert "idi up refuses it" in checks["declaration"]["detail"]


# --- completion -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "wanted", "never"),
    [
        ([""], {"up", "status", "audit"}, {"--env"}),
        (["st"], {"status"}, {"up"}),
        (["--"], {"--env", "--json", "--version"}, {"up"}),
        (["status", "--w"], {"--watch"}, {"--env"}),
        (["logs", ""], {"jede", "cam", "control"}, {"platform"}),
        (["scale", "j"], {"jede="}, {"cam="}),
        (["config", ""], {"get", "set"}, {"jede"}),
        (["config", "set", ""], {"jede", "cam"}, {"get"}),
        (["config", "set", "jede", ""], set(), {"jede", "cam"}),
        (["config", "set", "jede", "--"], {"--unset", "--expect"}, set()),
        (["call", ""], {"jede", "cam"}, set()),
        (["call", "jede", ""], set(), {"jede"}),
        (["run", ""], {"jede", "cam"}, set()),
        (["run", "jede", "--", ""], set(), {"jede"}),
        (["env", ""], {"jede", "cam"}, set()),
        (["env", "jede", "--"], {"--reveal", "--plain"}, set()),
        (["up", "--w"], {"--watch"}, {"--detach"}),
        (["audit", ""], {"list", "verify", "prove"}, {"jede"}),
        (["audit", "list", "--module", ""], {"jede", "cam"}, {"list"}),
        (["audit", "verify", "--"], {"--key"}, {"--module"}),
        (["--env", ""], {"dev", "staging", "production"}, {"up"}),
        (["--env", "dev", ""], {"up"}, {"dev"}),
        (["validate", "--file", ""], {"files"}, set()),
        (["completion", ""], {"bash", "zsh", "fish"}, set()),
        (["no-such", ""], set(), {"jede"}),
    ],
)
def test_suggestions(folder: Path, words: list[str], wanted: set[str], never: set[str]) -> None:
    found = {word for word, _ in suggestions(words)}
    assert wanted <= found
    assert not never & found


def test_environments_come_from_the_declaration(folder: Path) -> None:
    with open(folder / "platform.yaml", "a") as file:
        file.write("environments:\n  dev: {target: local}\n  qa: {target: local}   # nightly\n")
    assert [word for word, _ in suggestions(["--env", ""])] == ["dev", "qa"]
    assert [word for word, _ in suggestions(["--file", "nowhere", "logs", "j"])] == []


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`idi` as a program that a shell finds."""
    program = tmp_path / "bin" / "idi"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom idi.cli.main import main\nsys.exit(main())\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("on_path")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["idi", "sta"], ["status"]),
        (["idi", "scale", "j"], ["jede="]),
        (["idi", "validate", "--file", "plat"], ["platform.yaml"]),
        (["idi", "audit", "v"], ["verify"]),
    ],
)
def test_bash_completes(folder: Path, words: list[str], wanted: list[str]) -> None:
    script = (
        f'eval "$(idi completion bash)"; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; '
        "_idi 2>/dev/null; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == wanted, done.stderr


@pytest.mark.usefixtures("on_path")
def test_bash_completes_at_a_prompt(folder: Path) -> None:
    env = {"PS1": "ready$ ", "HISTFILE": ""}
    with Terminal(["bash", "--norc", "--noprofile", "-i"], env=env) as screen:
        screen.until("ready$")
        screen.send('eval "$(idi completion bash)"; echo l"oa"ded\r')
        screen.until("loaded")
        screen.send("idi valid\t")
        screen.until("idi validate")
        screen.send("\x15idi logs je\t")
        screen.until("idi logs jede")
        screen.send("\x15exit\r")
        screen.ends()


@pytest.mark.usefixtures("on_path")
def test_fish_completes(folder: Path) -> None:
    need_part("fish", shutil.which("fish"), "make test-parts")
    done = subprocess.run(
        [
            "fish",
            "--no-config",
            "-c",
            "idi completion fish | source; complete -C 'idi sta'; complete -C 'idi logs j'",
        ],
        capture_output=True,
        text=True,
    )
    words = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert words == ["status", "jede"], done.stderr


@pytest.mark.usefixtures("on_path")
def test_zsh_completes(folder: Path) -> None:
    need_part("zsh", shutil.which("zsh"), "make test-parts")
    with Terminal(["zsh", "-f", "-i"], env={"PS1": "ready> "}) as screen:
        screen.until("ready>")
        screen.send('autoload -Uz compinit && compinit -u -D; eval "$(idi completion zsh)"; echo l"oa"ded\r')
        screen.until("loaded")
        screen.send("idi valid\t")
        screen.until("idi validate")
        screen.send("\x15idi logs je\t")
        screen.until("idi logs jede")
        screen.send("\x15exit\r")
        screen.ends()
