"""What a cluster stands on, without Kubernetes: a group's programs are kept running, reached and ended with it."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import cgroups
from tests.support.cluster.cluster import lacking
from tests.support.cluster.group import Group, Kept, Spec
from tests.support.cluster.relay import Relay
from tests.support.platform import until
from tests.support.scale import need_part

ROOT = Path(__file__).resolve().parents[2]
ADDRESS, PORT = "10.90.0.1", 8000
BRANCH = os.environ.get("IDI_TEST_BRANCH") or f"idi-test-group-{os.getpid()}"
SERVES = (sys.executable, "-m", "http.server", str(PORT), "--bind", ADDRESS)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Group]:
    lacks = [name for name in lacking() if not name.startswith("go,")]
    need_part("a test cluster", not lacks, f"this machine lacks {', '.join(lacks)} (make test-parts)")
    made = Group("group", tmp_path)
    made.launch(spec(tmp_path))
    try:
        made.await_up()
        made.network("link set lo up", f"addr add {ADDRESS}/24 dev lo")
        made.tell("begin")
        yield made
    finally:
        made.kill()
        assert not cgroups.end(BRANCH)


def spec(folder: Path) -> Spec:
    programs = [Kept("web", SERVES), Kept("held", ["sleep", "1000"], held=True)]
    return Spec(
        str(folder / "log"), programs, cgroups.component(BRANCH), folders=[(str(folder / "run"), "/run")]
    )


@pytest.fixture
def relayed(group: Group) -> Iterator[int]:
    relay = Relay()
    yield relay.serve(group, ADDRESS, PORT)
    relay.close()


def answered(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@pytest.mark.requirement("K1")
def test_a_program_is_started_again_unless_it_is_stopped(group: Group, relayed: int) -> None:
    until(lambda: answered(relayed), 10)
    group.tell("kill", "web")
    until(lambda: "web ended" in group.tail("init"), 10, group.tail)
    until(lambda: answered(relayed), 10)
    group.tell("stop", "web")
    until(lambda: not answered(relayed), 10)
    group.tell("start", "web")
    until(lambda: answered(relayed), 10)
    assert "sleep" not in group.run("ps", "ax")
    group.tell("start", "held")
    until(lambda: "sleep 1000" in group.run("ps", "ax"), 10)


@pytest.mark.requirement("K1")
def test_what_a_group_binds_is_not_seen_outside(group: Group) -> None:
    group.run("touch", "/run/inside")
    assert (group.folder / "run" / "inside").exists()
    assert not Path("/run/inside").exists()
    assert str(group.folder) not in Path("/proc/self/mountinfo").read_text()


OWNER = """
import sys, time
from pathlib import Path
from tests.cluster.test_group import spec
from tests.support.cluster.group import Group
folder = Path(sys.argv[1])
folder.mkdir()
group = Group("orphan", folder)
group.launch(spec(folder))
group.await_up()
group.tell("begin")
group.tell("start", "held")
print("up", flush=True)
time.sleep(60)
"""


@pytest.mark.requirement("K1")
def test_a_group_ends_with_a_killed_owner(group: Group, tmp_path: Path) -> None:
    orphan = f"{BRANCH}-orphan"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path / "orphan")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "IDI_TEST_BRANCH": orphan},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    assert until(lambda: len(cgroups.processes(orphan)) == 3, 10)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    # The kernel ends them; nobody is there to do it.
    until(lambda: not cgroups.processes(orphan), 10, lambda: str(cgroups.processes(orphan)))
    assert not cgroups.end(orphan)
    assert group.running
