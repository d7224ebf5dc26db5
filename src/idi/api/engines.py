"""The programs that a platform runs on: which file, which version, under which licence."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from idi.parts.errors import PartError

TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Engine:
    """`problem` (with its `way_out`) where it is missing or does not run."""

    name: str
    licence: str
    wanted: str
    path: str = ""
    version: str = ""
    problem: str = ""
    way_out: str = ""


def engines() -> list[Engine]:
    """Every engine; all are asked for their version at the same time."""
    from idi.parts.bus.nats.binary import NATS
    from idi.parts.gateway.envoy.binary import ENVOY
    from idi.parts.secrets.openbao.binary import BAO

    asked = [
        _start("envoy", "Apache-2.0", "1.40", ENVOY.find, ["--version"]),
        _start("openbao", "MPL-2.0", "2.7", BAO.find, ["version"]),
        _start("nats", "Apache-2.0", "2.15", NATS.find, ["--version"]),
    ]
    return [_finish(*each) for each in asked]


_Started = tuple[Engine, "subprocess.Popen[bytes] | None"]


def _start(name: str, licence: str, wanted: str, find: Find, arguments: list[str]) -> _Started:
    try:
        path = os.fspath(find())
    except PartError as error:
        return Engine(name, licence, wanted, problem=error.message, way_out=error.way_out), None
    engine = Engine(name, licence, wanted, path)
    try:
        return engine, subprocess.Popen(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except OSError as error:
        return _broken(engine, f"{path} does not run: {error.strerror}."), None


def _finish(engine: Engine, process: subprocess.Popen[bytes] | None) -> Engine:
    if process is None:
        return engine
    try:
        said = process.communicate(timeout=TIMEOUT_S)[0].decode("utf-8", "replace")
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return _broken(engine, f"{engine.path} did not say its version within {TIMEOUT_S:.0f} s.")
    found = re.search(r"\bv?(\d+\.\d+\.\d+)\b", said)
    if process.returncode or not found:
        last = said.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        return _broken(engine, f"{engine.path} does not run: {last[0][:200]}")
    return Engine(engine.name, engine.licence, engine.wanted, engine.path, found[1])


def _broken(engine: Engine, problem: str) -> Engine:
    way_out = "Set it up again (make setup), or name another program in IDI_ENVOY, IDI_BAO or IDI_NATS."
    return Engine(engine.name, engine.licence, engine.wanted, engine.path, problem=problem, way_out=way_out)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Find = Callable[[], Path]
