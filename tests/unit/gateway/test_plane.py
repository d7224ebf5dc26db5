"""The plane without its socket: streams are opened by hand and answered by hand."""

import asyncio
from pathlib import Path

import pytest

from idi.parts.gateway.envoy import plane as module
from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.parts.gateway.envoy.resources import Kind
from idi.parts.gateway.envoy.server import Stream
from idi.parts.gateway.envoy.session import Request
from idi.parts.gateway.envoy.snapshot import Saved
from idi.parts.gateway.interface import Identity
from idi.traffic.types import (
    Assignment,
    Endpoint,
    EndpointGroup,
    Inbound,
    Outbound,
    Service,
    Sidecar,
    Traffic,
)
from idi.world.types import InstanceId

C, E, S, L, R = Kind.CLUSTER, Kind.ASSIGNMENT, Kind.SECRET, Kind.LISTENER, Kind.ROUTES


def cam_at(*ports: int) -> Assignment:
    ends = tuple(Endpoint(f"cam-{port}", "127.0.0.1", port) for port in ports)
    return Assignment("cam", (EndpointGroup("r1", 1, ends),))


def view(*nodes: str) -> Traffic:
    """Each node is a sidecar that calls cam and has one port of its own."""
    return Traffic(
        "t.idi",
        {"cam": Service("cam", "cam", "http", "spiffe://t.idi/dev/cam")},
        {"cam": cam_at(1, 2)},
        {
            InstanceId(node): Sidecar(
                InstanceId(node),
                "jede",
                "spiffe://t.idi/dev/jede",
                (Inbound("http", "http", "127.0.0.1", 7001, 7002, ()),),
                (Outbound("cam", "http", 7003),),
            )
            for node in nodes
        },
    )


async def anybody(token: str) -> str | None:
    return token


class Harness:
    def __init__(self) -> None:
        self.events: list[tuple[str, bool]] = []
        self.plane = EnvoyPlane(Path("/nowhere"), anybody, None, lambda *event: self.events.append(event))

    def certify(self, *nodes: str, serial: int = 1) -> None:
        for node in nodes:
            self.plane.set_identity(
                node, Identity("spiffe://t.idi/dev/jede", b"%d" % serial, b"k", b"r", 0.0)
            )

    def connect(self, node: str) -> Stream:
        """A new process: asks for everything, has nothing."""
        stream = self.plane.opened(node)
        for kind, names in ((C, ()), (E, ("cam",)), (S, ("identity", "roots")), (L, ()), (R, ("in.http",))):
            self.say(stream, Request(kind, names))
        return stream

    def say(self, stream: Stream, request: Request) -> None:
        stream.session.receive(request)
        self.plane.progressed(stream)

    def answer(self, stream: Stream, *, refuse: str = "") -> list[str]:
        """Answer all that is sent until nothing is; the names that came. What is named `refuse` is refused."""
        came = []
        while responses := stream.session.responses():
            for response in responses:
                names = [resource.name for resource in response.resources]
                came += names
                error = "Error: no" if refuse in names else ""
                self.say(stream, Request(response.kind, nonce=response.nonce, error=error))
        return came

    def held(self, node: str) -> dict[Kind, dict[str, str]]:
        """What a proxy that has everything would say that it holds."""
        store = self.plane._store.view(node)
        found = {}
        for kind, names in ((C, ("cam", "app.http")), (E, ("cam",)), (S, ("identity", "roots"))):
            found[kind] = {n: r.version for n in names if (r := store.find(kind, n)) is not None}
        for kind, names in ((L, ("in.http", "out.cam")), (R, ("in.http",))):
            found[kind] = {n: r.version for n in names if (r := store.find(kind, n)) is not None}
        return found


async def test_ready_when_it_has_all_of_it_with_its_certificate() -> None:
    h = Harness()
    h.plane.publish(view("j"))
    stream = h.connect("j")
    h.answer(stream)
    assert h.plane.connected() == {"j": False}
    h.certify("j")
    assert h.answer(stream) == ["identity", "roots"]
    assert h.plane.connected() == {"j": True}
    assert h.events == [("j", True)]
    # A rotation and a new view don't make it less ready.
    h.certify("j", serial=2)
    h.plane.publish(view("j", "k"))
    assert h.events == [("j", True)]


async def test_an_endpoint_goes_to_its_subscribers_and_nothing_else_does() -> None:
    h = Harness()
    h.certify("j", "k")
    h.plane.publish(view("j", "k"))
    one, other = h.connect("j"), h.connect("k")
    h.answer(one)
    h.answer(other)
    h.say(other, Request(E, unsubscribe=("cam",)))
    h.plane.publish_endpoints(cam_at(2))
    assert h.answer(one) == ["cam"]
    assert h.answer(other) == []
    h.plane.publish_endpoints(cam_at(2))
    assert h.answer(one) == []


async def test_the_same_view_sends_nothing() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    stream = h.connect("j")
    h.answer(stream)
    h.plane.publish(view("j"))
    h.certify("j")
    assert h.answer(stream) == []


async def test_barrier_waits_for_what_was_published_before_it_and_not_for_more() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    stream = h.connect("j")
    h.answer(stream)
    h.plane.publish_endpoints(cam_at(2))
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(h.plane.barrier(5))
        await asyncio.sleep(0)
        (response,) = stream.session.responses()
        # More changes come all the time; the one before the barrier is acknowledged.
        h.plane.publish_endpoints(cam_at(2, 3))
        assert not waiting.done()
        h.say(stream, Request(E, nonce=response.nonce))
        result = await waiting
    assert result.acknowledged == ("j",)
    assert stream.session.oldest() is not None


async def test_barrier_with_nothing_owed_is_done_at_once() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    h.answer(h.connect("j"))
    assert (await h.plane.barrier(0)).acknowledged == ("j",)


async def test_barrier_by_timeout_is_lost() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    h.answer(h.connect("j"))
    h.plane.publish_endpoints(cam_at(2))
    result = await h.plane.barrier(0.01)
    assert (result.acknowledged, result.lost) == ((), ("j",))


async def test_a_proxy_that_came_back_has_to_show_everything_first() -> None:
    """It serves by what it had. That it has answered nothing wrong yet does not mean that it has the news."""
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    first = h.connect("j")
    h.answer(first)
    old = h.held("j")
    h.plane.closed(first)
    h.plane.publish_endpoints(cam_at(2))
    stream = h.plane.opened("j")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(h.plane.barrier(5))
        for kind, names in ((C, ()), (S, ("identity", "roots")), (L, ()), (R, ("in.http",))):
            h.say(stream, Request(kind, names, initial=old[kind]))
            assert h.answer(stream) == []
            await asyncio.sleep(0)
            assert not waiting.done()
        h.say(stream, Request(E, ("cam",), initial=old[E]))
        assert h.answer(stream) == ["cam"]
        assert (await waiting).acknowledged == ("j",)
    assert h.events == [("j", True)]


async def test_a_proxy_that_left_is_waited_for_a_while_then_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    stream = h.connect("j")
    h.answer(stream)
    h.plane.closed(stream)
    assert (await h.plane.barrier(0.01)).lost == ("j",)
    assert h.plane.connected() == {"j": True}
    monkeypatch.setattr(module, "RECONNECT_S", 0.0)
    started = asyncio.get_running_loop().time()
    assert (await h.plane.barrier(5)).lost == ("j",)
    assert asyncio.get_running_loop().time() - started < 1


async def test_one_that_never_came_is_nobodys_concern() -> None:
    h = Harness()
    h.plane.publish(view("j", "k"))
    h.certify("j")
    h.answer(h.connect("j"))
    result = await h.plane.barrier(1)
    assert (result.acknowledged, result.lost) == (("j",), ())


async def test_a_new_process_is_not_ready_before_it_has_everything() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    first = h.connect("j")
    h.answer(first)
    h.plane.closed(first)
    h.answer(h.connect("j"))
    assert h.events == [("j", True), ("j", False), ("j", True)]


async def test_the_newer_of_two_streams_counts() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    first = h.connect("j")
    h.answer(first)
    second = h.connect("j")
    assert first.closed
    h.answer(second)
    h.plane.closed(first)
    assert h.plane.connected() == {"j": True}
    h.plane.publish_endpoints(cam_at(2))
    assert h.answer(second) == ["cam"]


async def test_refusals_are_shown_until_mended() -> None:
    h = Harness()
    h.certify("j")
    h.plane.publish(view("j"))
    stream = h.connect("j")
    h.answer(stream, refuse="out.cam")
    (rejection,) = h.plane.rejections()
    assert (rejection.node, rejection.resource, rejection.message) == ("j", "listener out.cam", "Error: no")
    assert h.plane.connected() == {"j": False}
    assert (await h.plane.barrier(0)).rejected == (rejection,)
    assert h.plane.rejections() == (rejection,)
    mended = view("j")
    sidecar = mended.sidecars[InstanceId("j")]
    changed = Sidecar(
        sidecar.instance, sidecar.module, sidecar.identity, sidecar.inbound, (Outbound("cam", "http", 7004),)
    )
    h.plane.publish(Traffic("t.idi", mended.services, mended.assignments, {InstanceId("j"): changed}))
    assert h.answer(stream) == ["out.cam"]
    assert h.plane.rejections() == ()
    assert h.plane.connected() == {"j": True}
    h.plane.closed(stream)


async def test_a_node_that_went_from_the_view_is_forgotten() -> None:
    h = Harness()
    h.certify("j", "k")
    h.plane.publish(view("j", "k"))
    streams = {node: h.connect(node) for node in ("j", "k")}
    for stream in streams.values():
        h.answer(stream)
    h.plane.closed(streams["k"])
    h.plane.publish(view("j"))
    assert h.plane.connected() == {"j": True}
    result = await h.plane.barrier(1)
    assert result == type(result)(("j",), (), ())
    h.plane.publish(view("j", "k"))
    assert h.plane.connected() == {"j": True, "k": False}


async def test_a_barrier_does_not_wait_for_who_goes_from_the_view_meanwhile() -> None:
    """Its sidecar has ended as it was to: there is nothing that it could still do wrong."""
    h = Harness()
    h.certify("j", "k")
    h.plane.publish(view("j", "k"))
    streams = {node: h.connect(node) for node in ("j", "k")}
    for stream in streams.values():
        h.answer(stream)
    h.plane.closed(streams["k"])
    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(h.plane.barrier(10))
        await asyncio.sleep(0)
        h.plane.publish(view("j"))
        h.answer(streams["j"])
    assert waiting.result() == type(waiting.result())(("j",), (), ())


async def test_only_who_stays_away_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    h = Harness()
    h.certify("j", "k")
    h.plane.publish(view("j", "k"))
    streams = {node: h.connect(node) for node in ("j", "k")}
    for stream in streams.values():
        h.answer(stream)
    held = h.held("j")
    for stream in streams.values():
        h.plane.closed(stream)
    back = h.plane.opened("j")
    h.say(back, Request(C, initial=held[C]))
    monkeypatch.setattr(module, "RECONNECT_S", 0.0)
    h.plane._let_go()
    assert h.plane.connected() == {"j": True, "k": False}
    assert h.events == [("j", True), ("k", True), ("k", False)]


async def test_a_disk_that_takes_nothing_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    h = Harness()
    h.plane._saved = Saved(tmp_path / "no such folder" / "view")
    h.plane.publish(view("j"))
    await h.plane._saved.keep(h.plane._store)
    assert "cannot be saved" in caplog.text
