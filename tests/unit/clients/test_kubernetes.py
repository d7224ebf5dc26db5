"""The client of Kubernetes where it needs no server: lines, paths, words, what a watch makes of what it is told."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from idi.parts.clients import kubernetes_access, kubernetes_watch
from idi.parts.clients.kubernetes import Listing, path
from idi.parts.clients.kubernetes_access import Access, Credentials, in_cluster
from idi.parts.clients.kubernetes_errors import KubernetesError, refusal
from idi.parts.clients.kubernetes_lines import bounded_lines
from idi.parts.clients.kubernetes_watch import Watch
from idi.parts.errors import PartError


class Content:
    """A body that comes in these pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces

    async def iter_any(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


async def lines(*pieces: bytes, limit: int = 8, cut: bool = True) -> list[bytes]:
    return [line async for line in bounded_lines(Content(*pieces), limit, cut=cut)]  # type: ignore[arg-type]


async def test_lines_are_whole_however_they_come() -> None:
    assert await lines(b"one\ntw", b"o\n\nthree") == [b"one", b"two", b"", b"three"]
    assert await lines(b"12345678\n", b"12345678", b"\n") == [b"12345678"] * 2


async def test_a_long_line_is_cut_or_an_error() -> None:
    assert await lines(b"123456", b"789", b"0\nnext\n") == ["12345678…".encode(), b"next"]
    assert await lines(b"1234567890") == ["12345678…".encode()]
    with pytest.raises(PartError, match="more than 8 bytes"):
        await lines(b"1234567890", cut=False)


def test_no_name_leads_out_of_its_place() -> None:
    assert path("v1", "pods", "a", "b", "log") == "/api/v1/namespaces/a/pods/b/log"
    assert path("apps/v1", "deployments") == "/apis/apps/v1/deployments"
    assert path("v1", "pods", "a", "../secrets?x#y") == "/api/v1/namespaces/a/pods/..%2Fsecrets%3Fx%23y"
    with pytest.raises(PartError):
        path("v1", "pods", "a", "..")


def test_a_refusal_is_short_and_in_words() -> None:
    long = refusal("GET", "/x", 500, b"<html>" + b"x" * 5000)
    assert long.retryable
    assert len(long.message) < 500
    assert refusal("GET", "/x", 502, b"").message == "Kubernetes refused reading /x: status 502."
    busy = {"code": 429, "message": "too many", "details": {"retryAfterSeconds": 3}}
    assert refusal("GET", "/x", 429, json.dumps(busy).encode()).after_s == 3.0


def test_outside_of_a_pod_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(PartError, match="no pod of a Kubernetes cluster"):
        in_cluster({}, tmp_path)
    inside = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    with pytest.raises(PartError, match="no service account"):
        in_cluster(inside, tmp_path)
    for name in ("token", "ca.crt", "namespace"):
        (tmp_path / name).write_text(f"{name}\n")
    access = in_cluster(inside, tmp_path)
    assert access.url == "https://[fd00::1]:6443"
    assert access.namespace == "namespace"


def test_a_token_is_read_again_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    file = tmp_path / "token"
    file.write_text("first\n")
    credentials = Credentials(Access("http://127.0.0.1:1", token_file=str(file)))
    assert credentials.token() == "first"
    assert "first" not in repr(Access("http://x", token="first"))
    file.write_text("second")
    assert credentials.token() == "first"
    now[0] += kubernetes_access.FRESH_S
    assert credentials.token() == "second"
    assert not credentials.stale()
    file.write_text("third")
    assert credentials.stale()
    assert credentials.token() == "third"


def item(name: str, version: int, uid: str = "") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid or name, "resourceVersion": str(version)}}


def event(kind: str, told: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": told}).encode() + b"\n"


EXPIRED = event("ERROR", {"code": 410, "reason": "Expired", "message": "too old"})
Answer = list[dict[str, Any]] | bytes | PartError


class Server:
    """Answers in this order: a list of objects to a listing, bytes to a watch, an error to either."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.versions: list[str] = []
        """What each stream went on from."""

    async def listing(self, path: str, **_: str) -> Listing:
        answer = self._next()
        assert isinstance(answer, list)
        return Listing(answer, "100")

    @asynccontextmanager
    async def stream(self, path: str, query: Mapping[str, str], silence_s: float) -> AsyncIterator[Content]:
        self.versions.append(query["resourceVersion"])
        answer = self._next()
        assert isinstance(answer, bytes)
        yield Content(answer)

    def _next(self) -> Answer:
        if not self.answers:
            raise End
        answer = self.answers.pop(0)
        if isinstance(answer, PartError):
            raise answer
        return answer


class End(Exception):
    """The test is over."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_watch, "FIRST_WAIT_S", 0.0)


async def told(server: Server) -> tuple[list[str], Watch]:
    watch = Watch(server, "/api/v1/things")  # type: ignore[arg-type]
    found: list[str] = []
    with pytest.raises(End):
        await _gather(watch, found)
    return found, watch


async def _gather(watch: Watch, found: list[str]) -> None:
    async with aclosing(watch.events()) as events:
        async for one in events:
            about = one.object.get("metadata", {})
            found.append(
                f"{one.kind.value} {about.get('name', '')} {about.get('resourceVersion', '')}".strip()
            )


async def test_bookmarks_keep_the_version_young() -> None:
    server = Server([], event("BOOKMARK", item("", 150)), event("ADDED", item("a", 160)), b"")
    found, watch = await told(server)
    assert server.versions == ["100", "150", "160", "160"]
    assert found == ["synced", "added a 160"]
    assert watch.listings == 1


async def test_a_listing_after_410_tells_only_what_is_new() -> None:
    before = [item("kept", 1), item("changed", 2), item("gone", 3), item("again", 4, "first")]
    after = [item("kept", 1), item("changed", 20), item("again", 40, "second"), item("new", 50)]
    found, watch = await told(Server(before, EXPIRED, after))
    assert found == [
        *("added kept 1", "added changed 2", "added gone 3", "added again 4", "synced"),
        *("deleted gone 3", "deleted again 4"),
        *("modified changed 20", "added again 40", "added new 50", "synced"),
    ]
    assert watch.listings == 2


async def test_410_as_an_answer_leads_to_a_listing_too() -> None:
    gone = refusal("GET", "/x", 410, b'{"reason": "Expired", "message": "too old"}')
    found, _ = await told(Server([item("a", 1)], gone, []))
    assert found == ["added a 1", "synced", "deleted a 1", "synced"]


async def test_what_is_told_twice_or_of_the_unknown_does_not_confuse() -> None:
    stream = (
        event("ADDED", item("a", 1))
        + event("ADDED", item("a", 1))
        + event("MODIFIED", item("b", 2))
        + event("DELETED", item("c", 3))
        + event("ADDED", item("a", 4, "another"))
    )
    found, _ = await told(Server([], stream))
    assert found == ["synced", "added a 1", "added b 2", "deleted a 1", "added a 4"]


async def test_a_server_that_went_back_in_time_is_listed_again() -> None:
    too_new = refusal("GET", "/x", 504, b'{"message": "Too large resource version"}')
    found, watch = await told(Server([item("a", 9)], *[too_new] * kubernetes_watch.TRIES, [item("a", 5)]))
    assert found == ["added a 9", "synced", "modified a 5", "synced"]
    assert watch.trouble is too_new


@pytest.mark.parametrize("stream", [b"no event\n", b'{"type": "ADDED"}\n', b"[]\n"])
async def test_nonsense_is_a_drop(stream: bytes) -> None:
    found, _ = await told(Server([], stream, event("ADDED", item("a", 1))))
    assert found == ["synced", "added a 1"]


async def test_a_refusal_is_raised_at_once_before_it_ever_worked_and_borne_for_a_while_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied() -> KubernetesError:
        return refusal("GET", "/x", 403, b'{"message": "pods is forbidden: you cannot list"}')

    for answers in ([denied()], [[], denied()]):
        with pytest.raises(KubernetesError):
            await _gather(Watch(Server(*answers), "/x"), [])  # type: ignore[arg-type]
    found, _ = await told(Server([], b"", denied(), denied(), event("ADDED", item("a", 1))))
    assert found == ["synced", "added a 1"]
    monkeypatch.setattr(kubernetes_watch, "PATIENCE_S", -1.0)
    with pytest.raises(KubernetesError):
        await _gather(Watch(Server([], b"", denied()), "/x"), [])  # type: ignore[arg-type]


def test_waits_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_watch, "FIRST_WAIT_S", 0.1)
    for failed, longest in ((1, 0.2), (3, 0.8), (50, kubernetes_watch.LONGEST_WAIT_S)):
        waits: Iterable[float] = {kubernetes_watch._wait_s(failed) for _ in range(20)}
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 1
