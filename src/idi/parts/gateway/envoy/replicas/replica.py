"""A replica: it holds the streams of proxies and the last view that control published, in memory alone.

It keeps one stream to control, opened anew with the token and the roots as they are then, and serves as soon as it
has a view and a certificate; from then on it serves whether control is there or not. Before that its port is not
open: proxies that come are refused by the system at once and go to another replica.

Control numbers its changes, and starts again at one when it is started again; this process numbers by itself. A
report speaks in control's numbers, so each change notes which number of ours it got.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from idi.parts.errors import PartError
from idi.parts.gateway.envoy.listening import KEEPALIVE_S, ServerCertificate, TlsPort
from idi.parts.gateway.envoy.plane import EnvoyPlane, Standing, nobody
from idi.parts.gateway.envoy.proving import Verify
from idi.parts.gateway.envoy.replicas.changes import View
from idi.parts.gateway.envoy.replicas.frames import (
    MAX_FRAME_BYTES,
    METHOD,
    SERVICE,
    Certificate,
    Down,
    Malformed,
    Put,
    Report,
    Secrets,
    ViewChange,
    decode_down,
    encode,
)
from idi.parts.gateway.envoy.resources import Kind

log = logging.getLogger(__name__)

AGAIN_S = (0.1, 0.5)
FIRST_S = 10.0
"""For control's first word."""

OPTIONS = (
    ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_S * 1000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_FRAME_BYTES),
    # A connection that others share would keep grpc's pause after a failure, up to two minutes.
    ("grpc.use_local_subchannel_pool", 1),
)
MAX_NUMBERS = 20_000


@dataclass(frozen=True, slots=True)
class Control:
    """Where control is, what proves it (a file of roots), and what proves us (a file with a token)."""

    host: str
    port: int
    roots: Path
    token: Path


class Numbers:
    """Our numbers of changes in control's."""

    def __init__(self) -> None:
        self._ours: list[int] = []
        self._controls: list[int] = []

    def note(self, ours: int, controls: int) -> None:
        self._ours.append(ours)
        self._controls.append(controls)
        if len(self._ours) > MAX_NUMBERS:
            del self._ours[: MAX_NUMBERS // 2], self._controls[: MAX_NUMBERS // 2]

    def of(self, behind: int | None) -> int | None:
        """Control's number of the change with which ours came; 0 where that was before what is noted."""
        if behind is None:
            return None
        if not self._ours or behind < self._ours[0]:
            return 0
        at = bisect_left(self._ours, behind)
        return self._controls[at] if at < len(self._controls) else self._controls[-1]


class Holding:
    """What control has said, and what there is to report about it. `plane` is made with the first certificate."""

    def __init__(self, make: Callable[[ServerCertificate, Callable[[str], None]], EnvoyPlane]) -> None:
        self._make = make
        self._certificate: ServerCertificate | None = None
        self._view = View()
        self._has_view = False
        self._waiting: list[Down] = []
        self._numbers = Numbers()
        self._applied = 0
        self._said = 0
        self._told: dict[str, Standing] | None = None
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self.plane: EnvoyPlane | None = None
        self.complete = asyncio.Event()
        """A view and a certificate are there: proxies can be served."""

    def attached(self) -> None:
        """A new stream: control knows nothing of us, and its numbers are others."""
        self._numbers = Numbers()
        self._applied = 0
        self._told = None

    def take(self, frame: Down) -> None:
        if isinstance(frame, Certificate):
            self._take_certificate(frame)
        elif self.plane is None:
            raise Malformed("the certificate has to come first")
        else:
            self._take_change(self.plane, frame)
        if self._has_view and self.plane is not None:
            self.complete.set()

    def _take_certificate(self, frame: Certificate) -> None:
        if self._certificate is not None:
            self._certificate.replace(frame.chain, frame.key)
            return
        self._certificate = ServerCertificate(frame.chain, frame.key)
        self.plane = self._make(self._certificate, self._mark)

    def _take_change(self, plane: EnvoyPlane, frame: ViewChange | Put | Secrets) -> None:
        match frame:
            case ViewChange(_, document):
                try:
                    self._view.apply(document)
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    raise Malformed(f"no view: {error}") from error
                self._has_view = True
                plane.take(self._view.shared, self._view.nodes)
            case Put(_, resource):
                if resource.kind is not Kind.ASSIGNMENT:
                    raise Malformed("only assignments change alone")
                self._view.shared[resource.kind][resource.name] = resource
                plane.put(resource)
            case Secrets(_, nodes):
                for node, secrets in nodes.items():
                    plane.put_secrets(node, secrets)
        self._numbers.note(plane.seq, frame.seq)
        self._applied = frame.seq
        self._wake.set()

    def _mark(self, node: str) -> None:
        self._changed.add(node)
        self._wake.set()

    async def report(self) -> Report:
        """The next one, as soon as there is something to say."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            # Before control's first change there is nothing to compare with, and all is told after it.
            if self.plane is None or not self._applied:
                continue
            report = self._now(self.plane)
            if report.whole or report.nodes or report.applied != self._said:
                self._said = report.applied
                return report

    def _now(self, plane: EnvoyPlane) -> Report:
        changed, self._changed = self._changed, set()
        if self._told is None:
            now: Mapping[str, Standing | None] = plane.standings()
            whole, self._told = True, {}
        else:
            now, whole = {node: plane.standing(node) for node in changed}, False
        clock = time.monotonic()
        said: dict[str, Standing | None] = {}
        for node, standing in now.items():
            if standing is None:
                if self._told.pop(node, None) is not None:
                    said[node] = None
                continue
            standing = replace(standing, behind=self._numbers.of(standing.behind))
            if self._told.get(node) != standing:
                self._told[node] = standing
                said[node] = replace(standing, since=clock - standing.since)
        return Report(self._applied, said, whole)


class Replica:
    """`where` proxies come to, and `verify` whose token is whose; `run` until cancelled."""

    def __init__(self, control: Control, where: tuple[str, int], verify: Verify) -> None:
        self._control = control

        def make(certificate: ServerCertificate, changed: Callable[[str], None]) -> EnvoyPlane:
            return EnvoyPlane(TlsPort(*where, certificate), verify, None, nobody, changed)

        self._holding = Holding(make)
        self.serving = False
        """Whether proxies can come."""
        self.attached = False
        """Whether control is there."""

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._serve())
            tasks.create_task(self._attach())

    async def _serve(self) -> None:
        await self._holding.complete.wait()
        assert self._holding.plane is not None
        async with self._holding.plane:
            self.serving = True
            log.info("serving")
            try:
                await asyncio.Event().wait()
            finally:
                self.serving = False

    async def _attach(self) -> None:
        said = ""
        while True:
            try:
                await self._converse()
                words = "control ended the stream"
            except* (grpc.RpcError, grpc.aio.UsageError, grpc.aio.InternalError) as group:
                words = f"control is away: {_words(group.exceptions[0])}"
            except* (OSError, TimeoutError, Malformed, PartError, asyncio.InvalidStateError) as group:
                words = f"no stream to control: {group.exceptions[0] or 'no answer in time'}"
            if self.attached or words != said:
                log.warning("%s", words)
                said = words
            self.attached = False
            await asyncio.sleep(random.uniform(*AGAIN_S))

    async def _converse(self) -> None:
        token = (await asyncio.to_thread(self._control.token.read_text)).strip()
        credentials = grpc.ssl_channel_credentials(await asyncio.to_thread(self._control.roots.read_bytes))
        target = f"{self._control.host}:{self._control.port}"
        async with grpc.aio.secure_channel(target, credentials, options=OPTIONS) as channel:
            open_stream: Callable[..., Any] = channel.stream_stream(f"/{SERVICE}/{METHOD}")
            call = open_stream(metadata=(("authorization", f"Bearer {token}"),))
            try:
                async with asyncio.timeout(FIRST_S):
                    first = await call.read()
                if first is grpc.aio.EOF:
                    raise await _refusal(call)
                self._holding.attached()
                self.attached = True
                self._holding.take(decode_down(first))
                async with asyncio.TaskGroup() as tasks:
                    reader = tasks.create_task(self._read(call.read))
                    writer = tasks.create_task(self._write(call.write))
                    await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
                    reader.cancel()
                    writer.cancel()
            finally:
                call.cancel()

    async def _read(self, read: Callable[[], Awaitable[Any]]) -> None:
        while (data := await read()) is not grpc.aio.EOF:
            self._holding.take(decode_down(data))

    async def _write(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        while True:
            await write(encode(await self._holding.report()))


async def _refusal(call: Any) -> Exception:
    return ConnectionError(f"refused: {await call.details() or (await call.code()).name}")


def _words(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return error.details() or error.code().name
    return str(error)
