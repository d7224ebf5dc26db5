"""A folder with a declaration, a runtime folder of its own, and `idi` run in this process."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from idi.api.place import socket_path
from idi.cli.main import main
from tests.command.fake_control import FakeControl, serving

DECLARATION = """\
platform: junzi
modules:
  jede:
    run: "true"
    instances: 2
    calls: [cam]
  cam:
    run: "true"
"""


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; fails where there is anything else."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def documents(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where started processes keep their bytecode: compiling at each start would be most of their time."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: Path) -> Iterator[Path]:
    """The working directory, with a platform.yaml."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(compiled))
    for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with TemporaryDirectory(prefix="idi-", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
        place = tmp_path / "work"
        place.mkdir()
        (place / "platform.yaml").write_text(DECLARATION)
        monkeypatch.chdir(place)
        yield place


@pytest.fixture
def idi(folder: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> Result:
        capfd.readouterr()
        code = main(list(arguments))
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return run


@pytest.fixture
def control(folder: Path) -> Iterator[FakeControl]:
    """A control that answers for the folder's platform."""
    with serving(Path(socket_path("platform.yaml", "dev")), FakeControl()) as found:
        yield found
