"""A disk that is really full: forward changes are refused, `stop` and `down` work, and nothing is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from idi.parts.store.reserve import RESERVE_BYTES, SLICE_BYTES, Reserve
from tests.support.scale import need_part

pytestmark = pytest.mark.requirement("S5")

ROOT = Path(__file__).resolve().parents[2]
DISK_BYTES = 16 << 20


@pytest.fixture
def namespace(tmp_path: Path) -> list[str]:
    """A command that runs another one where `tmp_path/disk` is a small disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size={DISK_BYTES} none "$0" && exec "$@"'
    # As root, or as root of a user namespace of one's own.
    commands = [
        [*unshare, "sh", "-c", mount, str(disk)] for unshare in (["unshare", "-m"], ["unshare", "-rm"])
    ]
    for command in commands:
        try:
            if subprocess.run([*command, "true"], capture_output=True, timeout=10).returncode == 0:
                return command
        except (OSError, subprocess.TimeoutExpired):
            continue
    need_part("a small disk", None, "unshare(1) that may mount a tmpfs (root, or user namespaces)")
    return []


def test_a_full_disk(namespace: list[str], tmp_path: Path) -> None:
    command = [
        *namespace,
        sys.executable,
        "-m",
        "tests.support.full_disk",
        str(tmp_path / "disk"),
        str(tmp_path / "k"),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)

    assert found["taken"] > DISK_BYTES // 4
    assert "only changes that stop something or go back are taken" in found["step"]
    assert "Make room" in found["step"]
    assert found["degraded"]
    assert "is full" in found["alerts"][0]
    assert found["forward"]
    assert found["noted"] == 1

    assert found["down"] == 30 * 2 + 2
    assert found["held"] > 0, "the reserve gives back slice by slice, and not to the neighbour"
    assert found["reopened_degraded"], "a restart does not forget it"
    assert found["reopened_forward"]
    assert found["reopened_down"] == 5 * 2 + 2
    assert found["unfinished"] == 0
    assert found["full"] == []

    assert "and so is the reserve" in found["exhausted"], "the end of the reserve is an error with a way out"
    assert found["still_readable"] == found["size"] - 1
    assert found["survived"] >= found["size"], "everything that was acknowledged is there"
    assert found["room"] == [{"reserve_bytes": RESERVE_BYTES}]
    assert not found["room_degraded"]
    assert found["refilled"] == RESERVE_BYTES
    assert found["after"] == []


def test_the_reserve_gives_back_in_slices_and_fills_again(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", 1 << 20)
    assert reserve.absent()
    assert reserve.fill()
    assert reserve.whole()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 20, "real blocks"
    slices = 0
    while reserve.give_back():
        slices += 1
    assert slices == (1 << 20) // SLICE_BYTES
    assert not reserve.whole()
    assert not reserve.absent(), "an empty reserve is not one that was never made"
    assert reserve.fill()
