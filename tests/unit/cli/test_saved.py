"""Whose file it is that was saved, and which folders are looked at for it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from idi.cli.inotify import Watcher
from idi.cli.saved import ignored_by_git, modules_of, passing, roots, skipped

WATCHED = {
    "jede": ["jede", "shared/*.py"],
    "cam": ["cam/main.go"],
    "pas": ["../pas/"],
    "vtl": ["."],
    "eat": [],
}


@pytest.mark.parametrize(
    ("path", "modules"),
    [
        ("jede/a.py", ["jede", "vtl"]),
        ("jede/deep/er/a.txt", ["jede", "vtl"]),
        ("jede.py", ["vtl"]),
        ("shared/a.py", ["jede", "vtl"]),
        ("shared/a.txt", ["vtl"]),
        ("cam/main.go", ["cam", "vtl"]),
        ("cam/other.go", ["vtl"]),
        ("../pas/a.js", ["pas"]),
        ("../elsewhere", []),
    ],
)
def test_whose_it_is(path: str, modules: list[str]) -> None:
    assert modules_of(f"/shop/{path}", "/shop", WATCHED, ignored=False) == modules
    assert modules_of(f"/shop/{path}", "/shop", WATCHED, ignored=True) == [m for m in modules if m != "vtl"]


def test_which_folders_are_looked_at(tmp_path: Path) -> None:
    for name in ("shop/jede", "shop/shared", "shop/cam", "pas"):
        (tmp_path / name).mkdir(parents=True)
    found = roots(str(tmp_path / "shop"), {name: each for name, each in WATCHED.items() if name != "vtl"})
    assert found == {str(tmp_path / name) for name in ("shop/jede", "shop/shared", "shop/cam", "pas")}


@pytest.mark.parametrize("name", ["a.py~", ".a.py.swp", ".#a", "#a#", "4913", "a.tmp", "a.pyc"])
def test_what_editors_leave_passes(name: str) -> None:
    assert passing(f"/shop/{name}")
    assert not passing("/shop/a.py")


def test_what_tools_make_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "pyvenv.cfg").touch()
    for name in ("mine", ".git", ".idi", ".venv", "node_modules", "__pycache__"):
        assert skipped(str(tmp_path / name))
    assert not skipped(str(tmp_path / "src"))


def test_what_git_ignores(tmp_path: Path) -> None:
    assert ignored_by_git([str(tmp_path / "a.log")], str(tmp_path)) == set(), "no repository"
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("*.log\n/built\n")
    paths = [str(tmp_path / name) for name in ("a.log", "built/x", "a.py")]
    assert ignored_by_git(paths, str(tmp_path)) == set(paths[:2])


def test_the_kernel_tells_of_files_and_of_new_folders(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    with Watcher(skipped) as watcher:
        watcher.watch([str(tmp_path)])
        (tmp_path / "a").write_text("1")
        (tmp_path / "node_modules" / "b").write_text("1")
        assert set(watcher.ready()) == {str(tmp_path / "a")}
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "c").write_text("1")
        assert str(tmp_path / "new" / "c") in watcher.ready()
        (tmp_path / "new" / "c").rename(tmp_path / "new" / "d")
        assert set(watcher.ready()) == {str(tmp_path / "new" / name) for name in "cd"}
        assert watcher.ready() == []
        assert not watcher.lost
