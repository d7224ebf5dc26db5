"""A program in Go that a test builds: another language's own clients and verifiers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.support.scale import need_part


def go_program(source: Path, folder: Path) -> Path:
    """Built outside of the checkout; Go keeps what it downloads and builds in its own cache."""
    go = shutil.which("go")
    need_part("Go", go, "https://go.dev/dl, 1.24 or newer")
    binary = folder / source.name
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false", "CGO_ENABLED": "0"}
    command = [str(go), "build", "-o", str(binary), "."]
    built = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=600)
    need_part("Go's module proxy", built.returncode == 0, built.stderr.strip()[-300:])
    return binary
