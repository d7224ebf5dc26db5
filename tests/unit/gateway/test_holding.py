"""What a replica does with control's documents, and what it reports, without a socket."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.parts.gateway.envoy.render.secrets import secret_resources
from idi.parts.gateway.envoy.render.view import Renderer, render_assignment
from idi.parts.gateway.envoy.replicas import changes
from idi.parts.gateway.envoy.replicas.changes import View
from idi.parts.gateway.envoy.replicas.frames import Certificate, Malformed, Put, Report, Secrets, ViewChange
from idi.parts.gateway.envoy.replicas.replica import Holding
from idi.parts.gateway.envoy.resources import Kind
from idi.parts.gateway.envoy.session import Request
from idi.parts.gateway.interface import Identity
from tests.support.envoy import Authority
from tests.unit.gateway.test_plane import anybody, cam_at, view


def whole(node: str, *ports: int) -> dict[str, object]:
    traffic = view(node)
    if ports:
        traffic = replace(traffic, assignments={"cam": cam_at(*ports)})
    shared, each = Renderer().render(traffic)
    return changes.whole(View({kind: dict(shelf) for kind, shelf in shared.items()}, dict(each)))


def certificate() -> Certificate:
    made = Authority().issue("spiffe://t/xds")
    return Certificate(made.chain, made.key)


def holding() -> Holding:
    return Holding(lambda _, changed: EnvoyPlane(Path("/nowhere"), anybody, None, on_change=changed))


async def said(h: Holding) -> Report | None:
    """What is to be reported now, if anything is."""
    try:
        async with asyncio.timeout(0.01):
            return await h.report()
    except TimeoutError:
        return None


async def test_nothing_is_reported_as_taken_before_the_view_is() -> None:
    """Certificates come first, and a barrier of the same number waits for the view."""
    h = holding()
    h.attached()
    h.take(certificate())
    h.take(Secrets(0, {}))
    assert await said(h) is None
    assert not h.complete.is_set()
    h.take(ViewChange(7, whole("j")))
    assert h.complete.is_set()
    assert await said(h) == Report(7, {}, whole=True)
    assert await said(h) is None
    h.take(Put(8, render_assignment(cam_at(3))))
    assert await said(h) == Report(8, {})
    # The same again is a change of number alone.
    h.take(Put(9, render_assignment(cam_at(3))))
    assert await said(h) == Report(9, {})


async def test_how_a_proxy_stands_is_said_in_controls_numbers_and_once() -> None:
    h = holding()
    h.attached()
    h.take(certificate())
    h.take(Secrets(0, {"j": secret_resources(Identity("spiffe://t/j", b"c", b"k", b"r", 0.0))}))
    h.take(ViewChange(40, whole("j")))
    assert h.plane is not None
    await said(h)
    stream = h.plane.opened("j")
    for kind, names in (
        (Kind.CLUSTER, ()),
        (Kind.ASSIGNMENT, ("cam",)),
        (Kind.SECRET, ("identity", "roots")),
        (Kind.LISTENER, ()),
        (Kind.ROUTES, ("in.http",)),
    ):
        stream.session.receive(Request(kind, names))
    h.plane.progressed(stream)
    report = await said(h)
    assert report is not None
    assert report.nodes["j"] is not None
    assert (report.nodes["j"].behind, report.nodes["j"].complete) == (0, False)

    def answer() -> None:
        while responses := stream.session.responses():
            for response in responses:
                stream.session.receive(Request(response.kind, nonce=response.nonce))
        assert h.plane is not None
        h.plane.progressed(stream)

    answer()
    report = await said(h)
    assert report is not None
    assert report.nodes["j"] is not None
    assert (report.nodes["j"].behind, report.nodes["j"].complete) == (None, True)
    h.take(Put(41, render_assignment(cam_at(3))))
    h.take(Put(42, render_assignment(cam_at(4))))
    report = await said(h)
    assert report is not None
    assert report.nodes["j"] is not None
    assert (report.applied, report.nodes["j"].behind) == (42, 41)
    # A new control counts from one; what is behind was so before it came.
    h.attached()
    h.take(ViewChange(2, whole("j", 5)))
    report = await said(h)
    assert report is not None
    assert report.whole
    assert report.nodes["j"] is not None
    assert (report.applied, report.nodes["j"].behind) == (2, 0)
    answer()
    report = await said(h)
    assert report is not None
    assert report.nodes["j"] is not None
    assert report.nodes["j"].behind is None
    h.plane.closed(stream)
    assert await said(h) == Report(2, {"j": None})


def test_what_makes_no_sense_is_refused() -> None:
    h = holding()
    with pytest.raises(Malformed, match="certificate has to come first"):
        h.take(ViewChange(1, whole("j")))
    h.take(certificate())
    with pytest.raises(Malformed):
        h.take(ViewChange(1, {"whole": True}))
    (secret, _) = secret_resources(Identity("spiffe://t/j", b"c", b"k", b"r", 0.0))
    with pytest.raises(Malformed, match="only assignments"):
        h.take(Put(1, secret))
    assert not h.complete.is_set()
