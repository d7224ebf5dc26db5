"""The environment and the command line of a module's process."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.parts.errors import Bug
from idi.parts.targets.local.environment import base
from idi.parts.targets.references import Place, command_line, environment, fill
from idi.world.types import InstanceId, PeerPort, PortSpec
from tests.support.targets import make_spec

SPEC = make_spec(
    ports=(PortSpec("http", "http"), PortSpec("admin", "grpc")),
    peers=(PeerPort("cam", "http"), PeerPort("cam.admin", "grpc"), PeerPort("ware-house", "tcp")),
)
PLACE = Place(
    InstanceId("jede-2"),
    ports={"http": 20001, "admin": 20002},
    outbound={"cam": 20003, "cam.admin": 20004, "ware-house": 20005},
    data_dir=Path("/data dir/jede"),
)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("${port}", "20001"),
        ("${port.http}:${port.admin}", "20001:20002"),
        ("${peer.cam.address}", "127.0.0.1:20003"),
        ("${peer.cam.port}", "20003"),
        ("${peer.cam.url}/v1", "http://127.0.0.1:20003/v1"),
        ("${peer.cam.admin.address}", "127.0.0.1:20004"),
        ("${peer.cam.admin.url}", "http://127.0.0.1:20004"),
        ("${peer.ware-house.url}", "tcp://127.0.0.1:20005"),
        ("${data_dir}/x", "/data dir/jede/x"),
        ("${instance}", "jede-2"),
        ("$${port} $PORT ${port}", "${port} $PORT 20001"),
        ("$${${port}}", "${20001}"),
        ("a $${ b", "a ${ b"),
    ],
)
def test_references(text: str, filled: str) -> None:
    assert fill(text, SPEC, PLACE) == filled


@pytest.mark.parametrize(
    "reference", ["", "prot", "port.x", "peer.x.url", "peer.cam.uri", "peer.cam.x.url", "a.b.c.d.e"]
)
def test_what_nobody_can_fill_is_a_bug(reference: str) -> None:
    with pytest.raises(Bug, match="nobody can fill"):
        fill(f"${{{reference}}}", SPEC, PLACE)


def test_no_storage_no_data_folder() -> None:
    place = replace(PLACE, data_dir=None)
    with pytest.raises(Bug):
        fill("${data_dir}", SPEC, place)
    assert "IDI_DATA_DIR" not in environment(SPEC, place, {})


def test_no_port_no_port() -> None:
    spec = replace(SPEC, ports=())
    assert "PORT" not in environment(spec, PLACE, {})
    with pytest.raises(Bug):
        fill("${port}", spec, PLACE)


def test_a_command_line_quotes_only_what_needs_it() -> None:
    assert command_line("run --port ${port} --data ${data_dir} '$$x'", SPEC, PLACE) == (
        "run --port 20001 --data '/data dir/jede' '$$x'"
    )


def test_what_we_set_wins_over_what_is_declared_over_what_is_inherited() -> None:
    spec = replace(SPEC, environment={"PORT": "1", "LANG": "C", "CAM_URL": "${peer.cam.url}"})
    given = environment(spec, PLACE, {"LANG": "de", "HOME": "/h"})
    assert given == {
        "HOME": "/h",
        "LANG": "C",
        "CAM_URL": "http://127.0.0.1:20003",
        "PORT": "20001",
        "IDI_INSTANCE": "jede-2",
        "IDI_DATA_DIR": "/data dir/jede",
    }


def test_little_is_handed_on() -> None:
    own = {
        "HOME": "/h",
        "XDG_CACHE_HOME": "/c",
        "LC_TIME": "C",
        "PATH": "/bin",
        "TOKEN": "hush",
        "IDI_SEAT": "x",
    }
    assert base(own, Path("/venv/bin/python")) == {
        "HOME": "/h",
        "XDG_CACHE_HOME": "/c",
        "LC_TIME": "C",
        "PATH": "/venv/bin:/bin",
    }
    assert base({}, Path("/venv/bin/python"))["PATH"].startswith("/venv/bin:")


@given(st.text())
def test_text_without_references_stays(text: str) -> None:
    escaped = text.replace("${", "$${")
    assert fill(escaped, SPEC, PLACE) == text
