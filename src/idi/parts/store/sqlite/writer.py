"""The one thread that writes: several calls, one transaction, one signed head.

Everything that waits when the thread becomes free is composed into a single transaction, so that callers that
wait together share its price: one fsync for the write-ahead log and two for the head. Order: compose (pure;
a wrong call fails alone) -> commit -> head written -> the callers are told. Whoever is told may begin the effect.

Disk full: the transaction is rolled back, the reserve gives back one slice, forward changes are refused from
here on, everything else is tried again; an entry says so. When there is room, the reserve is filled first and
an entry says that too.

A head that could not be written is made up for before the next transaction, so the database is never ahead of
its head by more than one.

Any other failure of the disk is the end: after an fsync that failed nobody can tell what the disk holds, and the
next one may succeed without having written it. Everything is refused until a restart has read it again.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from idi.ledger import checkpoint
from idi.ledger.checkpoint import Checkpoint
from idi.parts.errors import Bug, IdiError, PartError, Refused
from idi.parts.store import draft
from idi.parts.store.draft import PLATFORM, Compose, Composed, Tip, Writes
from idi.parts.store.files import Lock, free_bytes, write_whole
from idi.parts.store.interface import OUTBOX_ALERT, State
from idi.parts.store.reserve import Reserve, is_full
from idi.parts.store.sqlite import schema
from idi.parts.store.sqlite.opening import open_journal
from idi.parts.store.sqlite.rows import write_rows

T = TypeVar("T")

MAX_BATCH = 256
WAL_BYTES = 4 << 20
"""Past this the write-ahead log is copied into the database, after the callers have been told."""

_SCARCE_BYTES = 256 << 10


@dataclass(slots=True)
class Request:
    """One call. `forward` says, for the tip that it meets, whether a full disk may put it off."""

    compose: Compose[Any]
    forward: Callable[[Tip], bool]
    done: Future[Any] = field(default_factory=Future)


class NoRoom(Exception):
    """The disk is full; nothing of the transaction is in the database."""


class Writer:
    """Used by one thread alone, but for `state` and `head`, which are replaced whole."""

    def __init__(
        self,
        directory: Path,
        key_dir: Path,
        origin: str,
        clock: Callable[[], float],
        reserve: Reserve,
        outbox_alert: int = OUTBOX_ALERT,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._reserve = reserve
        self._outbox_alert = outbox_alert
        self._lock = Lock(directory / "lock")
        try:
            if reserve.absent():
                reserve.fill()
            opened = self._with_room(lambda: open_journal(directory, key_dir, origin, clock()))
            self._connection = self._with_room(lambda: _connect(directory / schema.FILE))
        except BaseException:
            self._lock.release()
            raise
        self._signer = opened.signer
        self.tip = opened.tip
        self._outbox = opened.outbox
        self._behind = False
        self._broken: PartError | None = None
        self.head: bytes = opened.head
        self.degraded = not reserve.whole()
        self.state = self._state()
        try:
            self._write_own(opened.notes)
            self.look_for_room()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        try:
            self._connection.close()
        finally:
            self._lock.release()

    # --- the calls of others

    def drain(self, waiting: deque[Request]) -> None:
        """Serve what waits; each request is answered when this returns."""
        batch: list[Request] = []
        while waiting and len(batch) < MAX_BATCH:
            request = waiting.popleft()
            if request.done.set_running_or_notify_cancel():
                batch.append(request)
        if not batch:
            return
        try:
            self._serve(batch)
        finally:
            for request in batch:
                if not request.done.done():
                    request.done.set_exception(Bug("The journal stopped in the middle of a batch."))
        self._checkpoint()

    def _serve(self, batch: list[Request]) -> None:
        try:
            if self._broken is not None:
                raise self._broken
            self.look_for_room()
            while batch:
                served, writes, tip = self._compose(batch)
                if not served:
                    return
                try:
                    self._commit(writes, tip)
                except NoRoom:
                    self._make_room()
                    batch = [request for request, _ in served]
                    continue
                for request, composed in served:
                    request.done.set_result(composed.value)
                return
        except (sqlite3.Error, OSError, PartError) as error:
            failure = _failure(error, self._directory)
            if not failure.retryable:
                self._broken = failure
            for request in batch:
                if not request.done.done():
                    request.done.set_exception(failure)

    def _compose(self, batch: list[Request]) -> tuple[list[tuple[Request, Composed[Any]]], Writes, Tip]:
        """One transaction out of many calls; a call that cannot be is answered here."""
        tip, writes, now = self.tip, Writes(), self._clock()
        served: list[tuple[Request, Composed[Any]]] = []
        for request in batch:
            try:
                if self.degraded and request.forward(tip):
                    raise Refused(
                        f"The disk of {self._directory} is full: only changes that stop something or go back "
                        "are taken, and traffic goes on.",
                        "Make room, then try again.",
                    )
                composed = request.compose(tip, now)
            except IdiError as error:
                request.done.set_exception(error)
                continue
            tip = composed.tip
            writes.add(composed.writes)
            served.append((request, composed))
        return served, writes, tip

    # --- room on the disk

    def look_for_room(self) -> None:
        """Fill the reserve when there is room for it, and say so."""
        if not self.degraded or not self._reserve.fill():
            return
        self.degraded = False
        self.state = self._state()
        self._write_own(
            [draft.note(PLATFORM, "journal.room", "", {"reserve_bytes": self._reserve.held()}, {})]
        )

    def _make_room(self) -> None:
        if not self._reserve.give_back():
            raise PartError(
                f"The disk of {self._directory} is full, and so is the reserve: the journal cannot be written.",
                "Make room, then try again.",
            )
        if not self.degraded:
            self.degraded = True
            note = draft.note(PLATFORM, "journal.full", "", {"free_bytes": free_bytes(self._directory)}, {})
            self._write_own([note])
        self.state = self._state()

    def _with_room(self, act: Callable[[], T]) -> T:
        """Do it; on a full disk let the reserve give back until it works."""
        while True:
            try:
                return act()
            except (sqlite3.Error, OSError) as error:
                if not _no_room(error, self._directory):
                    raise _failure(error, self._directory) from error
                if not self._reserve.give_back():
                    raise _failure(error, self._directory) from error

    # --- one transaction

    def _write_own(self, notes: tuple[Compose[int], ...] | list[Compose[int]]) -> None:
        """Entries of the journal's own, in a transaction each; on a full disk from the reserve."""
        for compose in notes:
            while True:
                composed = compose(self.tip, self._clock())
                try:
                    self._commit(composed.writes, composed.tip)
                    break
                except NoRoom:
                    if not self._reserve.give_back():
                        return  # the degraded state itself is on the disk; its entry is not worth failing for

    def _commit(self, writes: Writes, tip: Tip) -> None:
        """Raises `NoRoom` with the old tip still true."""
        if self._behind:
            self._advance_head()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            grown = write_rows(self._connection, writes, self.tip.size)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if _no_room(error, self._directory):
                raise NoRoom from error
            raise
        self.tip = tip
        self._outbox += grown
        self.state = self._state()
        if writes.rows:
            self._behind = True
            self._advance_head()

    def _advance_head(self) -> None:
        """Sign the tip. Until this is done nobody is told that what it covers was written."""
        frontier = self.tip.frontier
        signed = Checkpoint(self._signer.verifier.name, frontier.size, frontier.root())
        data = checkpoint.sign(signed, self._signer)
        self._with_room(lambda: write_whole(self._directory / schema.HEAD, data))
        self.head = data
        self._behind = False

    def _checkpoint(self) -> None:
        """Keep the write-ahead log short. That it fails (a full disk, a reader) costs room and nothing else."""
        try:
            if (self._directory / f"{schema.FILE}-wal").stat().st_size > WAL_BYTES:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (sqlite3.Error, OSError):
            pass

    def _state(self) -> State:
        alerts = []
        if self.degraded:
            alerts.append(f"the disk of {self._directory} is full: only stop, down and rollback are taken")
        if self._outbox > self._outbox_alert:
            alerts.append(f"{self._outbox} audit entries wait for EAT, more than {self._outbox_alert}")
        return State(
            origin=self._signer.verifier.name,
            verifier=self._signer.verifier.encode(),
            size=self.tip.size,
            outbox=self._outbox,
            degraded=self.degraded,
            alerts=tuple(alerts),
        )


def _connect(path: Path) -> sqlite3.Connection:
    connection = schema.connect(path, writing=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _no_room(error: Exception, directory: Path) -> bool:
    """Whether it failed for want of space: some of SQLite's writes say only that they failed."""
    if isinstance(error, OSError):
        return is_full(error)
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL:
        return True
    vague = code & 0xFF in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    return vague and free_bytes(directory) < _SCARCE_BYTES


def _failure(error: Exception, directory: Path) -> PartError:
    if isinstance(error, PartError):
        return error
    if _no_room(error, directory):
        return PartError(
            f"The disk of {directory} is full: the journal cannot be written.", "Make room, then try again."
        )
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return PartError(
            f"Another program holds the journal in {directory}: {error}.", "End it, then try again."
        )
    return PartError(
        f"The journal in {directory} cannot be written any more: {error}.",
        "See to the disk, then start again: what was acknowledged is checked at the start.",
        retryable=False,
    )
