"""The journal as others see it: awaitable, from any task of one event loop.

Writes go to the one thread that owns the database (`writer`); each call waits until its transaction and the
head over it are durable. Reads open a snapshot of their own in another thread, so a long one neither waits for
a disk nor keeps it waiting.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from idi.ledger.canonical import JSON
from idi.parts.errors import Bug, PartError
from idi.parts.store import draft
from idi.parts.store.draft import Compose, Tip
from idi.parts.store.files import make_folder
from idi.parts.store.interface import (
    MAX_READ,
    OUTBOX_ALERT,
    Actor,
    ChangeId,
    Documents,
    Entry,
    Filter,
    OpenChange,
    Pending,
    State,
    Step,
    StepId,
    Store,
)
from idi.parts.store.reserve import RESERVE_BYTES, Reserve
from idi.parts.store.sqlite import schema
from idi.parts.store.sqlite.reader import Damaged, Snapshot, snapshot
from idi.parts.store.sqlite.writer import Request, Writer

T = TypeVar("T")

MAX_WAITING = 1024
"""Calls that may wait for the writer; the next one waits for its turn."""

_NOTHING: Mapping[str, JSON] = MappingProxyType({})
_NO_DOCUMENTS: Documents = MappingProxyType({})
_ANY = Filter()


@asynccontextmanager
async def open_store(
    directory: Path,
    key_dir: Path,
    *,
    origin: str,
    clock: Callable[[], float],
    reserve_bytes: int = RESERVE_BYTES,
    outbox_alert: int = OUTBOX_ALERT,
) -> AsyncIterator[Store]:
    """Open the journal in `directory` (a folder of its own), making it on first use.

    `key_dir` lies outside the checkout and holds `log-key`. `origin` names the log on first use (no spaces, no
    plus); `clock` gives wall-clock seconds. Raises `Refused` when another process has it, when it is damaged or
    of another version.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
    loop = asyncio.get_running_loop()

    def start() -> Writer:
        make_folder(directory)
        reserve = Reserve(directory / "reserve", reserve_bytes)
        return Writer(directory, key_dir, origin, clock, reserve, outbox_alert)

    starting = thread.submit(start)
    try:
        try:
            writer = await asyncio.wrap_future(starting)
        except asyncio.CancelledError:
            thread.submit(_close_late, starting)  # runs behind it: nobody is left to use what it opens
            raise
        store = _SqliteStore(directory, writer, thread)
        try:
            yield store
        finally:
            store.closed = True
            # Behind everything that waits already: nothing that was accepted is dropped.
            await asyncio.shield(loop.run_in_executor(thread, writer.close))
    finally:
        thread.shutdown(wait=False)


def _close_late(starting: Future[Writer]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().close()


class _SqliteStore:
    def __init__(self, directory: Path, writer: Writer, thread: ThreadPoolExecutor) -> None:
        self._directory = directory
        self._writer = writer
        self._thread = thread
        self._waiting: deque[Request] = deque()
        self._slots = asyncio.Semaphore(MAX_WAITING)
        self.closed = False

    async def begin(
        self,
        actor: Actor,
        action: str,
        detail: Mapping[str, JSON],
        *,
        subject: str = "",
        documents: Documents = _NO_DOCUMENTS,
        relief: bool = False,
    ) -> ChangeId:
        compose = draft.begin(actor, action, subject, detail, documents, relief)
        return await self._write(compose, lambda _: not relief)

    async def intend(
        self, change: ChangeId, steps: Sequence[Step], documents: Documents = _NO_DOCUMENTS
    ) -> list[StepId]:
        compose = draft.intend(change, steps, documents)
        return await self._write(compose, lambda tip: draft.is_forward(tip, change))

    async def outcome(
        self,
        step: StepId,
        ok: bool,
        detail: Mapping[str, JSON] = _NOTHING,
        documents: Documents = _NO_DOCUMENTS,
    ) -> None:
        await self._write(draft.outcome(step, ok, detail, documents))

    async def finish(
        self, change: ChangeId, ok: bool, reason: str = "", documents: Documents = _NO_DOCUMENTS
    ) -> None:
        await self._write(draft.finish(change, ok, reason, documents))

    async def note(
        self,
        actor: Actor,
        action: str,
        detail: Mapping[str, JSON],
        *,
        subject: str = "",
        documents: Documents = _NO_DOCUMENTS,
    ) -> int:
        return await self._write(draft.note(actor, action, subject, detail, documents))

    async def unfinished(self) -> list[OpenChange]:
        # The writer's own view: what is acknowledged is in it, and its tip is replaced whole.
        return sorted(self._writer.tip.open.values(), key=lambda change: change.id)

    async def document(self, name: str) -> bytes | None:
        return await self._read(lambda view: view.document(name))

    async def entries(
        self, start: int = 0, limit: int = 100, *, newest: bool = False, only: Filter = _ANY
    ) -> list[Entry]:
        return await self._read(lambda view: view.entries(start, limit, newest=newest, only=only))

    async def pending(self, limit: int = 100) -> list[Pending]:
        def read(view: Snapshot) -> list[Pending]:
            indices = view.pending(min(limit, MAX_READ))
            return [Pending(index, view.data(index), view.node(0, index)) for index in indices]

        return await self._read(read)

    async def delivered(self, upto: int) -> None:
        await self._write(draft.delivered(upto))

    async def head(self) -> bytes:
        return self._writer.head

    @property
    def state(self) -> State:
        return self._writer.state

    async def _write(self, compose: Compose[T], forward: Callable[[Tip], bool] = lambda _: False) -> T:
        async with self._slots:
            if self.closed:
                raise Bug("The journal is closed.")
            request = Request(compose, forward)
            self._waiting.append(request)
            self._thread.submit(self._writer.drain, self._waiting)
            value: T = await asyncio.wrap_future(request.done)
            return value

    async def _read(self, read: Callable[[Snapshot], T]) -> T:
        return await asyncio.to_thread(self._read_now, read)

    def _read_now(self, read: Callable[[Snapshot], T]) -> T:
        path = self._directory / schema.FILE
        try:
            with snapshot(path) as view:
                return read(view)
        except (Damaged, sqlite3.Error) as error:
            raise PartError(f"The journal {path} cannot be read: {error}.", retryable=False) from error
