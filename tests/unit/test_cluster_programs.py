"""The test cluster's programs: built once per version, whole or not at all, by one builder at a time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import programs
from tests.support.cluster.programs import CannotBuild, Program, built, folder_of

ROOT = Path(__file__).resolve().parents[2]
# Stands in for the compiler: notes that it was asked, writes slowly, and fails or is killed on demand.
GO = """#!/bin/sh
echo asked >> "$ASKED"
while [ "$1" != -o ]; do shift; done
mkdir -p "$(dirname "$2")"
echo half > "$2"
[ -z "$KILLED" ] || kill -9 $PPID
sleep 0.2
[ -z "$FAILS" ] || { echo "does not compile" >&2; exit 1; }
echo whole > "$2"
"""
PROGRAM = Program("thing", also=("called",))
CHILD = """
from pathlib import Path
import sys
from tests.support.cluster import programs
from tests.unit.test_cluster_programs import PROGRAM
programs.SOURCES = Path(sys.argv[1])
print(programs.built(PROGRAM))
"""


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "sources" / "thing"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module thing\n")
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(GO)
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("IDI_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(programs, "SOURCES", folder.parent)
    return folder


def asked() -> int:
    return len(Path(os.environ["ASKED"]).read_text().splitlines())


def child(sources: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(sources.parent)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def test_another_version_is_another_folder_and_the_same_is_built_once(sources: Path) -> None:
    folder = built(PROGRAM)
    assert (folder / "called").read_text() == "whole\n"
    assert built(PROGRAM) == folder
    assert asked() == 1
    (sources / "go.mod").write_text("module thing // newer\n")
    assert built(PROGRAM) != folder
    assert asked() == 2


def test_two_builders_build_once(sources: Path) -> None:
    both = [child(sources), child(sources)]
    said = {one.communicate(timeout=60)[0] for one in both}
    assert said == {f"{folder_of(PROGRAM)}\n"}
    assert asked() == 1


def test_what_fails_or_is_killed_leaves_no_program(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(CannotBuild, match="does not compile"):
        built(PROGRAM)
    monkeypatch.delenv("FAILS")
    monkeypatch.setenv("KILLED", "1")
    killed = child(sources)
    killed.communicate(timeout=60)
    assert killed.returncode == -9
    assert not folder_of(PROGRAM).exists()
    monkeypatch.delenv("KILLED")
    assert (built(PROGRAM) / "thing").read_text() == "whole\n"
