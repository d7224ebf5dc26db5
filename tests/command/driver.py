"""`idi`, except that what it starts as control is the stand-in: for tests through a real terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from idi.api.paths import Paths
from idi.cli import launch
from idi.cli.invocation import Invocation
from idi.cli.main import main


def spawn(paths: Paths, invocation: Invocation, ports: launch.Ports) -> subprocess.Popen[bytes]:
    del invocation, ports
    return subprocess.Popen(
        [
            sys.executable,
            str(Path(__file__).with_name("fake_control.py")),
            str(paths.socket),
            os.environ["SCENARIO"],
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


if __name__ == "__main__":
    launch.spawn = spawn
    sys.exit(main())
