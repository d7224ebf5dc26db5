"""The record of an instance: what is written is what is read."""

from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.types import Readiness
from idi.parts.targets.local.seats import Occupant, Records, Seat, by_kind, decode, encode, purposes
from idi.world.types import InstanceId, PeerPort, PortSpec
from tests.support.targets import make_spec

WORDS = st.text(max_size=20)
PORTS = st.dictionaries(WORDS, st.integers(1, 65535), max_size=3)
OCCUPANTS = st.builds(Occupant, st.integers(0, 2**22), st.integers(0, 2**40), st.booleans())
SPECS = st.builds(
    lambda **changes: replace(make_spec(), **changes),
    command=WORDS,
    environment=st.dictionaries(WORDS, WORDS, max_size=3),
    ports=st.lists(st.builds(PortSpec, WORDS, WORDS), max_size=2).map(tuple),
    peers=st.lists(st.builds(PeerPort, WORDS, WORDS), max_size=2).map(tuple),
    readiness=st.builds(Readiness, http=WORDS, tcp=st.booleans(), every_s=st.floats(0.1, 10)),
    storage=st.booleans(),
)
SEATS = st.builds(
    Seat,
    instance=st.just(InstanceId("jede-1")),
    spec=SPECS,
    ports=PORTS,
    mesh=PORTS,
    outbound=PORTS,
    created=st.floats(0, 1e10),
    module=OCCUPANTS,
    sidecar=OCCUPANTS,
    restarts=st.integers(0, 1000),
    ready=st.booleans(),
    since=st.floats(0, 1e10),
    stopping=st.booleans(),
    attached=st.booleans(),
)


@given(SEATS)
def test_what_is_written_is_read(seat: Seat) -> None:
    assert decode(encode(seat)) == seat


def test_through_a_file(tmp_path: Path) -> None:
    records = Records(tmp_path / "seats", boot="one")
    seat = Seat(
        InstanceId("jede-1"), make_spec(), {"http": 1}, {"http": 2}, {}, 3.0, Occupant(4, 5), Occupant(6, 7)
    )
    records.write("jede-1", encode(seat))
    assert {name: decode(document) for name, document in records.read().items()} == {"jede-1": seat}
    assert [path.name for path in (tmp_path / "seats").iterdir()] == ["jede-1.json"]
    rebooted = decode(Records(tmp_path / "seats", boot="two").read()["jede-1"])
    assert rebooted == replace(seat, module=Occupant(), sidecar=Occupant())
    records.remove("jede-1")
    records.remove("jede-1")
    assert records.read() == {}


def test_purposes_by_kind() -> None:
    spec = make_spec(peers=(PeerPort("cam", "http"), PeerPort("cam.admin", "grpc")))
    assert purposes(spec) == ["port:http", "mesh:http", "outbound:cam", "outbound:cam.admin"]
    numbered = {purpose: number for number, purpose in enumerate(purposes(spec))}
    assert by_kind(numbered, "outbound") == {"cam": 2, "cam.admin": 3}
