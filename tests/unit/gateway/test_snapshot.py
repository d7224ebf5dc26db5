"""The view on disk comes back as it was, without secrets, or not at all."""

from pathlib import Path

from idi.parts.gateway.envoy import snapshot
from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Store


def store() -> Store:
    made = Store()
    cluster = Resource(Kind.CLUSTER, "cam", "v1", b"\x00cluster", ((Kind.ASSIGNMENT, "cam"),))
    ends = Resource(Kind.ASSIGNMENT, "cam", "v2", b"ends")
    door = Resource(Kind.LISTENER, "in", "v3", b"door")
    sees = {Kind.CLUSTER: frozenset({"cam"}), Kind.ASSIGNMENT: frozenset({"cam"})}
    made.replace(
        {Kind.CLUSTER: {"cam": cluster}, Kind.ASSIGNMENT: {"cam": ends}},
        {"n": NodeResources(sees, {Kind.LISTENER: {"in": door}})},
    )
    made.put_secrets("n", [Resource(Kind.SECRET, "identity", "v4", b"PRIVATE KEY")])
    return made


def test_there_and_back(tmp_path: Path) -> None:
    path = tmp_path / "view"
    before = store()
    snapshot.write(snapshot.dump(before), path)
    saved = snapshot.load(path)
    assert saved is not None
    after = Store()
    after.replace(*saved)
    for kind in (Kind.CLUSTER, Kind.ASSIGNMENT, Kind.LISTENER):
        assert after.names("n", kind) == before.names("n", kind)
        for name in after.names("n", kind):
            assert after.find("n", kind, name) == before.find("n", kind, name)
    assert after.find("n", Kind.SECRET, "identity") is None
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_view_is_the_same_file() -> None:
    assert snapshot.dump(store()) == snapshot.dump(store())


def test_what_cannot_be_read_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "view"
    assert snapshot.load(path) is None
    snapshot.write(snapshot.dump(store()), path)
    good = path.read_bytes()
    for bad in (b"", good[:-1], good.replace(b"cam", b"cat"), b"0\n{}", b"\xff\xfe"):
        path.write_bytes(bad)
        assert snapshot.load(path) is None
    other = snapshot.dump(store()).replace(b'"format":1', b'"format":2')
    snapshot.write(other, path)
    assert snapshot.load(path) is None


def test_a_node_cannot_find_anothers_secret() -> None:
    made = store()
    assert made.find("n", Kind.SECRET, "identity") is not None
    assert made.find("m", Kind.SECRET, "identity") is None
    assert made.find("m", Kind.CLUSTER, "cam") is None
    assert made.find("n", Kind.CLUSTER, "dere") is None


def test_a_certificate_may_come_before_the_view_and_goes_with_its_node() -> None:
    made = Store()
    made.put_secrets("n", [Resource(Kind.SECRET, "identity", "v1", b"1")])
    made.replace({}, {"m": NodeResources()})
    made.replace({}, {"m": NodeResources(), "n": NodeResources()})
    assert made.find("n", Kind.SECRET, "identity") is not None
    made.replace({}, {"m": NodeResources()})
    assert made.find("n", Kind.SECRET, "identity") is None
