"""Secret files lie in memory and nowhere else; what a revision needs is read off its texts."""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from idi.parts.targets.interface import Unsupplied
from idi.parts.targets.local.secrets import SecretFiles, as_text, in_memory, memory_folder, supplied
from idi.parts.targets.references import Needed, needed
from idi.world.types import InstanceId, RevisionSpec
from tests.support.targets import make_spec

pytestmark = pytest.mark.requirement("S1", "T4")

MOUNTS = """\
overlay / overlay rw 0 0
tmpfs /dev tmpfs rw 0 0
shm /dev/shm tmpfs rw 0 0
/dev/sda1 /run/user/7\\040x ext4 rw 0 0
tmpfs /run tmpfs rw 0 0
"""
JEDE = InstanceId("jede-1")


@pytest.mark.parametrize(
    ("path", "yes"),
    [
        ("/dev/shm", True),
        ("/dev/shmx", True),  # within /dev
        ("/run/user/7 x", False),
        ("/run/user/8", True),
        ("/running", False),
        ("/home", False),
    ],
)
def test_the_innermost_mount_counts(path: str, yes: bool) -> None:
    assert in_memory(Path(path), MOUNTS) is yes


def test_a_mount_over_another_counts() -> None:
    assert not in_memory(Path("/dev/shm"), MOUNTS + "/dev/sda1 /dev/shm ext4 rw 0 0\n")


def test_where_there_is_no_memory_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n")
    monkeypatch.setattr("idi.parts.targets.local.secrets.MOUNTS", mounts)
    assert memory_folder("hash", {"XDG_RUNTIME_DIR": str(tmp_path)}) is None
    mounts.write_text(f"/dev/sda1 / ext4 rw 0 0\ntmpfs {tmp_path} tmpfs rw 0 0\n")
    found = memory_folder("hash", {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found is not None
    assert found.parent == tmp_path
    mounts.unlink()
    assert memory_folder("hash", {}) is None
    with pytest.raises(Unsupplied, match="secret a/b is to be a file") as caught:
        SecretFiles(None).place(JEDE, {"a/b": b"x"})
    assert not caught.value.retryable
    assert SecretFiles(None).place(JEDE, {}) == {}


def test_files_are_their_owners_alone_and_go_with_their_instance(tmp_path: Path) -> None:
    files = SecretFiles(tmp_path / "idi")
    for value in (b"first", b"\xff\0"):  # a second start writes them anew
        placed = files.place(JEDE, {"a": value, "a/b": value, "x" * 256: value})
        assert len(set(placed.values())) == 3
        for path in map(Path, placed.values()):
            assert path.read_bytes() == value
            assert stat.S_IMODE(path.stat().st_mode) == 0o400
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    files.place(InstanceId("cam-1"), {"a": b"x"})
    files.remove(JEDE)
    files.remove(JEDE)
    assert [path.name for path in (tmp_path / "idi").iterdir()] == ["cam-1"]
    files.sweep([])
    assert not (tmp_path / "idi").exists()
    files.sweep([])


async def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "idi").symlink_to(tmp_path / "other")
    files = SecretFiles(tmp_path / "idi")

    async def supply(_: RevisionSpec, paths: Collection[str]) -> Mapping[str, bytes]:
        return dict.fromkeys(paths, b"geheim")

    spec = replace(make_spec(), environment={"KEY": "${secret_file.a}"})
    with pytest.raises(Unsupplied, match="is a link or another user's"):
        await supplied(supply, files, JEDE, spec)
    files.sweep([])
    assert list((tmp_path / "other").iterdir()) == []


async def test_only_what_is_referred_to_is_asked_for(tmp_path: Path) -> None:
    asked: list[Collection[str]] = []

    async def supply(_: RevisionSpec, paths: Collection[str]) -> Mapping[str, bytes]:
        asked.append(set(paths))
        return {path: path.encode() for path in paths}

    files = SecretFiles(tmp_path / "idi")
    bare = replace(make_spec(), command="serve $${secret.no}", environment={"A": "$${secret.no} ${port}"})
    assert needed(bare) == Needed(frozenset(), frozenset())
    await supplied(supply, files, JEDE, bare)
    assert asked == []
    full = replace(
        bare, command="serve ${secret.c}", environment={"A": "${secret.a/b}", "B": "${secret_file.d}"}
    )
    found = await supplied(supply, files, JEDE, full)
    assert asked == [{"c", "a/b", "d"}]
    assert found.texts == {"a/b": "a/b", "c": "c"}
    assert content(found.files["d"]) == b"d"
    assert "a/b" not in repr(found)


def content(path: str) -> bytes:
    return Path(path).read_bytes()


@pytest.mark.parametrize("value", [b"\xff", b"a\0b"])
def test_what_is_no_text_cannot_be_a_variable(value: bytes) -> None:
    with pytest.raises(Unsupplied, match="is no text") as caught:
        as_text("a/b", value)
    assert not caught.value.retryable
