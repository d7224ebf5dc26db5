"""Variables become a dataclass, and every mistake is told at once."""

from __future__ import annotations

import dataclasses
import enum
import os
import pickle
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from idi.module import Secret, SecretFile
from idi.module.config import read

pytestmark = pytest.mark.requirement("S1", "S2")


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Config:
    name: str
    workers: int = 1
    rate: float = 0.5
    fast: bool = False
    patience: timedelta = timedelta(seconds=3)
    folder: Path = Path("/tmp")
    hosts: list[str] = field(default_factory=list)
    ports: tuple[int, ...] = ()
    mode: Literal["loud", "quiet"] = "quiet"
    size: Size = Size.SMALL
    limit: int | None = None
    password: Secret | None = None
    key: SecretFile | None = None


def test_each_type_is_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k1\n")
    found, mistakes = read(
        Config,
        {
            "NAME": "jede", "WORKERS": "8", "RATE": "1e-3", "FAST": "true", "PATIENCE": "1.5m", "FOLDER": "/srv",
            "HOSTS": "a, b,,c", "PORTS": "1,2", "MODE": "loud", "SIZE": "large", "LIMIT": "5", "PASSWORD": "s3",
            "KEY": str(tmp_path / "key"), "OTHER": "x",
        },
    )  # fmt: skip
    assert mistakes == []
    assert found is not None
    assert (found.name, found.workers, found.rate, found.fast) == ("jede", 8, 0.001, True)
    assert (found.patience, found.folder, found.hosts) == (
        timedelta(seconds=90),
        Path("/srv"),
        ["a", "b", "c"],
    )
    assert (found.ports, found.mode, found.size, found.limit) == ((1, 2), "loud", Size.LARGE, 5)
    assert found.password == Secret("s3")
    assert found.key is not None
    assert found.key.value == "k1"


def test_what_is_not_set_has_its_default() -> None:
    found, mistakes = read(Config, {"NAME": "jede"})
    assert not mistakes
    assert found == Config("jede")


@dataclass
class Strict:
    url: str
    password: Secret
    workers: int = 1
    rate: float = 0.0
    fast: bool = False
    patience: timedelta = timedelta()
    mode: Literal["loud", "quiet"] = "quiet"
    size: Size = Size.SMALL
    ports: list[int] = field(default_factory=list)
    key: SecretFile | None = None


def test_all_mistakes_are_told_at_once_and_no_secret_is_shown() -> None:
    wrong = {
        "WORKERS": "many", "RATE": "nan", "FAST": "yes", "PATIENCE": "3", "MODE": "soft", "SIZE": "xl",
        "PORTS": "1,x", "KEY": "/nowhere/s3cret",
    }  # fmt: skip
    found, mistakes = read(Strict, wrong)
    assert found is None
    assert mistakes == [
        "URL is not set: give it under `config` in platform.yaml.",
        "PASSWORD is not set: give it under `secrets` in platform.yaml.",
        "WORKERS must be a whole number, not 'many'.",
        "RATE must be a number, not 'nan'.",
        "FAST must be true or false, not 'yes'.",
        "PATIENCE must be a duration such as 300ms, 2s or 1h, not '3'.",
        "MODE must be one of loud, quiet, not 'soft'.",
        "SIZE must be one of small, large, not 'xl'.",
        "PORTS must be a whole number, not '1,x'.",
        "KEY must be the path of a file (declare it with `as: file`): No such file or directory.",
    ]


def test_what_two_fields_say_together_is_looked_at_by_the_dataclass() -> None:
    @dataclass
    class Range:
        low: int
        high: int

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError(f"LOW is {self.low} and must not be above HIGH, {self.high}.")

    assert read(Range, {"LOW": "3", "HIGH": "2"})[1] == ["LOW is 3 and must not be above HIGH, 2."]


@pytest.mark.parametrize("kind", [dict[str, int], bytes, int | str])
def test_a_type_that_cannot_be_read_is_the_programmers_mistake(kind: Any) -> None:
    odd: Any = dataclasses.make_dataclass("Odd", [("x", kind)])
    with pytest.raises(TypeError, match="is no type that a variable can be read into"):
        read(odd, {"X": "1"})


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret("hunter2")
    for shown in (repr(secret), str(secret), f"{secret}", repr(Strict("u", secret)), repr([secret])):
        assert "hunter2" not in shown
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert secret == Secret("hunter2") != Secret("x")


def test_a_secret_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"one\n")
    key = SecretFile(path)
    assert (key.value, key.bytes()) == ("one", b"one\n")
    fresh = tmp_path / "fresh"
    fresh.write_bytes(b"two\n")
    os.replace(fresh, path)
    assert key.value == "two"
    assert "two" not in f"{key!r}"
