"""Every way to end is an exit code and a message; nothing else reaches a user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from idi.cli.commands import MODULES, command
from idi.cli.reference import reference
from tests.command.conftest import Run
from tests.command.fake_control import FakeControl

ROOT = Path(__file__).resolve().parents[2]
IDI = [sys.executable, "-c", "import sys; from idi.cli.main import main; sys.exit(main())"]


def test_the_overview_names_every_command(idi: Run) -> None:
    found = idi("--help")
    assert found.code == 0
    for name in MODULES:
        assert f"\n  {name} " in found.out
    assert idi("help").out == idi("-h").out == found.out
    assert idi().code == 2
    assert max(map(len, found.out.splitlines())) <= 80


@pytest.mark.parametrize("name", MODULES)
def test_help_is_as_wide_as_the_terminal(idi: Run, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    help_, _, examples = idi(name, "--help").out.partition("\nExample")
    assert max(map(len, help_.splitlines()[1:])) <= 80  # the first is the usage, in one
    assert examples  # which may be longer: they are to be copied


@pytest.mark.parametrize("name", MODULES)
def test_every_command_has_help_with_an_example(idi: Run, name: str) -> None:
    found = idi(name, "--help")
    assert found.code == 0
    assert found.out.startswith(f"usage: idi {name}")
    assert "Example" in found.out
    assert any(f"idi {name}" in example for example in command(name).examples)
    for line in found.out.splitlines():
        assert len(line) <= 100
    assert idi("help", name).out == found.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stauts"], "Did you mean 'status'?"),
        (["status", "--jsno"], "Did you mean '--json'?"),
        (["--jsno", "status"], "Did you mean '--json'?"),
        (["status", "extra"], "Not understood: extra."),
        (["audit", "lst"], "Did you mean 'list'?"),
        (["audit"], "WHAT"),
        (["scale"], "MODULE=N"),
        (["scale", "jede"], "'jede' is not MODULE=N."),
        (["scale", "jede=101"], "out of range"),
        (["scale", "jede=1", "jede=2"], "named twice"),
        (["config"], "WHAT"),
        (["config", "set", "jede"], "Nothing is to be set."),
        (["config", "set", "jede", "LEVEL"], "'LEVEL' is not NAME=VALUE."),
        (["config", "set", "jede", "LEVEL=a", "LEVEL=b"], "named twice"),
        (["config", "set", "jede", "LEVEL=a", "--unset", "LEVEL"], "to be set and to be unset"),
        (["config", "set", "jede", "1A=b"], "an environment variable's name"),
        (["config", "set", "jede", "LEVEL=yes"], 'quote it to pass it as text: "yes"'),
        (["config", "set", "jede", "LEVEL=a", "--expect", "x"], "no whole number"),
        (["config", "set", "jede", "LEVEL=a", "--unst", "X"], "Did you mean '--unset'?"),
        (["status", "--env", "../etc"], "no name of an environment"),
        (["--env", "A", "status"], "no name of an environment"),
        (["status", "--env"], "expected one argument"),
        (["logs", "--since", "5"], "no duration"),
        (["logs", "--lines", "0"], "not a number"),
        (["up", "--gateway-port", "70000"], "no port"),
        (["token", "--new-secret"], "needs --client"),
        (["call", "jede", "-H", "nonsense"], "no header"),
        (["call", "jede", "-H", "x: né→"], "beyond ASCII"),
        (["call", "jede", "-d", "@nowhere"], "cannot be read"),
        (["completion", "tcsh"], "bash"),
    ],
)
def test_wrong_usage_is_2_and_says_what_would_be_right(idi: Run, arguments: list[str], said: str) -> None:
    found = idi(*arguments)
    assert found.code == 2
    assert found.out == ""
    assert said in found.err
    assert "Traceback" not in found.err
    assert "usage:" not in found.err


def test_wrong_usage_with_json_is_one_problem_on_stderr(idi: Run) -> None:
    found = idi("--json", "stauts")
    assert found.out == ""
    problem = json.loads(found.err)
    assert problem["title"] == "Wrong usage"
    assert problem["exit"] == 2
    assert problem["way_out"]


@pytest.mark.parametrize("where", ["before", "after"])
def test_options_for_all_come_before_the_command_or_after(idi: Run, control: FakeControl, where: str) -> None:
    options = ["--json", "--file", "platform.yaml", "--env=dev"]
    found = idi(*options, "status") if where == "before" else idi("status", *options)
    assert found.code == 0
    assert found.document["platform"] == "junzi"


def test_what_stands_after_the_command_wins(idi: Run, control: FakeControl) -> None:
    assert idi("--env", "staging", "status", "--env", "dev").code == 0
    assert idi("--env", "dev", "status", "--env", "staging").code == 3
    assert idi("--env", "dev", "status", "--env=staging").code == 3


def test_a_fault_of_our_own_is_one_line_and_debug_shows_where(
    idi: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def boom(*_: object) -> None:
        raise ZeroDivisionError("by accident")

    monkeypatch.setattr("idi.cli.invocation.Invocation.client", boom)
    found = idi("status")
    assert found.code == 1
    assert "ZeroDivisionError: by accident" in found.err
    assert "Traceback" not in found.err
    assert "Traceback" in idi("status", "--debug").err


def test_a_reader_that_has_enough_is_no_failure(folder: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -c 'import sys; from idi.cli.main import main; sys.exit(main())' schema | head -c 10; "
        'echo "exit ${PIPESTATUS[0]}"',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.stdout.endswith("exit 0\n")


def test_a_full_disk_is_said(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*IDI, "schema"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_output_that_an_encoding_cannot_hold_is_no_failure(folder: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*IDI, "plan"], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "never"),
    [
        (["--help"], ["argparse", "json", "socket", "re", "enum", "typing"]),
        (
            ["status"],
            ["argparse", "hashlib", "dataclasses", "typing", "pathlib", "asyncio", "subprocess", "datetime"],
        ),
        (["completion", "words", "--", "st"], ["yaml", "dataclasses", "asyncio", "idi.declaration.load"]),
    ],
)
def test_what_a_fast_command_never_imports(
    folder: Path, control: FakeControl, arguments: list[str], never: list[str]
) -> None:
    """Time is measured elsewhere; this holds on any machine: what is not imported costs nothing."""
    code = (
        "import sys; before = set(sys.modules); from idi.cli.main import main; code = main(sys.argv[1:]);"
        "print('\\n'.join(sorted(set(sys.modules) - before)), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = set(done.stderr.split())
    assert imported
    assert imported & set(never) == set()


def test_the_reference_is_what_the_parsers_say() -> None:
    page = ROOT / "docs" / "reference" / "commands.md"
    assert page.read_text(encoding="utf-8") == reference(), (
        "python -m idi.cli.reference > docs/reference/commands.md"
    )
