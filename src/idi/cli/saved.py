"""Which modules a saved file belongs to, by their `watch:`. Pure but for git, which is asked what it ignores."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase

LEFT_OUT = frozenset({"node_modules", "__pycache__", "venv", "env"})
"""Folders that tools make, beside every hidden one."""

PASSING = re.compile(r".*~|\.#.*|#.*#|.*\.sw[a-z]|.*\.tmp|4913|.*\.py[co]")
"""Files that editors and interpreters write beside the one that matters."""

EVERYTHING = "."
GIT_S = 5.0

Watched = Mapping[str, Collection[str]]
"""By module: files, folders and patterns, relative to the declaration's folder."""


def skipped(folder: str) -> bool:
    """Whether nothing in a folder is anybody's source."""
    name = os.path.basename(folder)
    return name.startswith(".") or name in LEFT_OUT or os.path.exists(os.path.join(folder, "pyvenv.cfg"))


def passing(path: str) -> bool:
    return PASSING.fullmatch(os.path.basename(path)) is not None


def roots(directory: str, watched: Watched) -> set[str]:
    """The folders to look at for these patterns."""
    found = set()
    for pattern in {each for patterns in watched.values() for each in patterns}:
        fixed = os.path.normpath(os.path.join(directory, re.split(r"[*?\[]", pattern)[0] or "."))
        if pattern != EVERYTHING and not os.path.isdir(fixed):
            fixed = os.path.dirname(fixed)
        found.add(fixed)
    return found


def modules_of(path: str, directory: str, watched: Watched, *, ignored: bool) -> list[str]:
    """Whose file it is. What git ignores is nobody's unless a pattern names it."""
    relative = os.path.relpath(path, directory)
    return [
        module
        for module, patterns in watched.items()
        if any(belongs(relative, pattern, ignored=ignored) for pattern in patterns)
    ]


def belongs(relative: str, pattern: str, *, ignored: bool) -> bool:
    if pattern == EVERYTHING:
        return not ignored and not relative.startswith("..")
    pattern = os.path.normpath(pattern)
    return relative == pattern or relative.startswith(f"{pattern}/") or fnmatchcase(relative, pattern)


def ignored_by_git(paths: Iterable[str], directory: str) -> set[str]:
    """Those that git ignores; none where there is no git."""
    import subprocess

    text = "".join(f"{path}\0" for path in paths)
    try:
        done = subprocess.run(
            ["git", "check-ignore", "-z", "--stdin"],
            cwd=directory,
            input=text.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return set(done.stdout.decode(errors="surrogateescape").split("\0")) - {""}
