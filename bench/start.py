"""`idi up` with the nine modules, against a plain script that starts the same processes.

Warm: everything was up once before, so OpenBao has its store and the disk is in memory. The script starts what
`idi up` had started (the same commands, environments, Envoys with their bootstrap files, OpenBao with its store), all
at once, and waits until each answers: modules their readiness path, Envoys their admin socket, OpenBao unsealed. It has
neither control nor certificates nor routes, so its Envoys carry no traffic: what `idi up` needs beyond that is in the
ratio.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.figure import ROOT, Figure, Options, Spread, main, say
from idi.parts.gateway.envoy.start import admin_socket
from tests.support.platform import NINE, Platform, alive, platform

MARKER = "IDI_SEAT"
END_S = 15.0


@dataclass(frozen=True)
class Start:
    """Seconds of one `idi up`, and when it got how far."""

    seconds: float
    until: Mapping[str, float]


def measure(options: Options) -> Sequence[Figure]:
    ups: list[Start] = []
    scripts: list[float] = []
    runs = options.repetitions(3, 10)
    with platform(NINE) as one:
        first = up(one)
        one.down()
        for run in range(runs):
            say(f"pair {run + 1}/{runs}")
            ups.append(up(one))
            processes, files = as_started(one)
            one.down()
            scripts.append(script(processes, files))
    phases = {
        name: f"{Spread.of(each.until[name] for each in ups).value:.2f} s after the start"
        for name in first.until
    }
    return [
        Figure(
            "idi up with nine modules to a plain script that starts the same",
            Spread.ratios((each.seconds, other) for each, other in zip(ups, scripts, strict=True)),
            at_most=1.5,
            detail={
                "processes": len(processes),
                "script": f"{Spread.of(scripts).value:.2f} s ({min(scripts):.2f} to {max(scripts):.2f})",
                "the very first idi up": f"{first.seconds:.2f} s (OpenBao makes its store)",
            },
        ),
        Figure(
            "idi up --detach, warm", Spread.of(each.seconds for each in ups), "s", at_most=10.0, detail=phases
        ),
    ]


def up(one: Platform) -> Start:
    wall, begun = time.time(), time.monotonic()
    one.up()
    seconds = time.monotonic() - begun
    status = one.status()
    until = {"control composed": when(status["control"]) - wall}
    until |= {f"{part['name']} ready": when(part) - wall for part in status["parts"]}
    instances = [each for module in status["modules"] for each in module["instances"]]
    until |= {"first module ready": min(map(when, instances)) - wall}
    until |= {"last module ready": max(map(when, instances)) - wall}
    return Start(seconds, until)


def when(view: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(view["since"]).timestamp()


def as_started(one: Platform) -> tuple[list[dict[str, Any]], dict[Path, bytes]]:
    """Every process but control as it was started and how it is asked, and the files that `down` takes away."""
    status = one.status()
    runtime = one.paths.runtime
    found = []
    for part in status["parts"]:
        if "instances" in part:
            continue  # it is started as modules are
        if part["name"] == "gateway":
            asked: dict[str, Any] = {"socket": str(admin_socket(runtime, "gateway")), "path": "/ready"}
        else:
            asked = {"socket": str(runtime / "bao.sock"), "path": "/v1/sys/health", "begins": "HTTP/1.1 200"}
        found.append(process_of(part["pid"], asked))
    for module in [*status["parts"], *status["modules"]]:
        for each in module.get("instances", ()):
            how = {"path": "/ready", "begins": "INFO" if module["name"] == "bus" else "HTTP/1.1 200"}
            ready = process_of(each["pid"], how)
            ready["asked"]["port"] = int(ready["environment"]["PORT"])
            sidecar = {"socket": str(admin_socket(runtime, each["id"])), "path": "/ready"}
            found += [ready, process_of(each["sidecar_pid"], sidecar)]
    files = {
        path: path.read_bytes()
        for pattern in ("*.envoy.json", "openbao.hcl", "nats.conf")
        for path in runtime.glob(pattern)
    }
    return found, files


def process_of(pid: int, asked: dict[str, Any]) -> dict[str, Any]:
    here = Path(f"/proc/{pid}")
    variables = (item.partition("=") for item in (here / "environ").read_text().split("\0") if item)
    return {
        "argv": (here / "cmdline").read_text().rstrip("\0").split("\0"),
        "environment": {name: value for name, _, value in variables if name != MARKER},
        "cwd": os.readlink(here / "cwd"),
        "log": os.devnull,
        "asked": asked,
    }


def script(processes: list[dict[str, Any]], files: Mapping[Path, bytes]) -> float:
    """How long the script takes; what it started is ended again."""
    for path, content in files.items():
        path.touch(mode=0o600)
        path.write_bytes(content)
    text = json.dumps(processes)
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "bench.plain_start"], input=text, capture_output=True, text=True, cwd=ROOT
    )
    seconds = time.monotonic() - begun
    end([int(line) for line in done.stdout.split()])
    if done.returncode != 0:
        raise RuntimeError(f"the script failed: {done.stderr}")
    return seconds


def end(pids: Sequence[int]) -> None:
    """Ask them to end, then see to it. They are of a script that is gone, so nobody else waits for them."""
    for pid in pids:
        os.kill(pid, 15)
    deadline = time.monotonic() + END_S
    while left := [pid for pid in pids if alive(pid)]:
        if time.monotonic() > deadline:
            for pid in left:
                os.kill(pid, 9)
            return
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main("start", measure))
