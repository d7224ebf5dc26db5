"""The life of control: lock, compose, adopt, serve, end.

Control is replaceable at any moment: it holds no pipe, no parent's duty and no state that is not on disk.
Its end by a signal therefore ends nothing else; only a `down` does, step by step, and then control ends
itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from idi.api.paths import Paths, UnsafeFolder, make_private
from idi.control import moved
from idi.control.settings import Settings
from idi.parts.clients.collector import quiet_collector
from idi.parts.errors import IdiError

if TYPE_CHECKING:
    from idi.control.change.reconciler import Reconciler

log = logging.getLogger(__name__)

AGAIN = -1
LOOK_S = 2.0
AUTHORITIES = "SSL_CERT_FILE"  # as OpenSSL calls it
LOCKED = 75
"""EX_TEMPFAIL: another control runs this platform."""


def start(settings: Settings) -> int:
    """Run until told to end; the process's exit code."""
    paths = settings.paths
    os.umask(0o077)
    try:
        for folder in (paths.state.parent, paths.state, paths.logs, paths.runtime):
            make_private(folder)
        moved.check(paths)
        make_private(paths.keys)
        keep_out_of_git(paths)
        with locked(paths) as ours:
            if not ours:
                return LOCKED
            logging.basicConfig(
                level=logging.INFO,
                stream=sys.stderr,
                format="%(asctime)s %(levelname)s %(name)s %(message)s",
            )
            paths.start_error.unlink(missing_ok=True)
            use_all_descriptors()
            code = asyncio.run(run(settings))
        if code == AGAIN:
            log.warning("the runtime folder vanished; control starts again to make its sockets anew")
            os.execv(sys.executable, [sys.executable, "-P", "-m", "idi.control", *sys.argv[1:]])
        return code
    except UnsafeFolder as unsafe:
        return refuse(paths, str(unsafe), "")
    except Exception as raised:
        error = innermost(raised)
        if isinstance(error, IdiError):
            return refuse(paths, error.message, error.way_out)
        log.exception("control ended by a bug")
        return refuse(paths, f"{type(error).__name__}: {error}.", "This is a bug of IDI; its log says more.")


def innermost(error: BaseException) -> BaseException:
    """What was raised inside of a task group, out of its wrapping."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def run(settings: Settings) -> int:
    """Compose the parts and serve until `down` or a signal."""
    from idi.control.ahead import Ahead
    from idi.parts.store.sqlite.store import open_store

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    paths = settings.paths
    journal = open_store(paths.state / "journal", paths.keys, origin=f"idi/{paths.hash8}", clock=time.time)
    async with journal as store, Ahead(settings, store) as ahead:
        with without_authorities():  # the better half of what control imports
            import aiohttp  # noqa: F401
        from idi.api.server import serve

        if settings.cluster is None:
            from idi.control.compose import compose
        else:
            from idi.control.compose_cluster import compose

        async with compose(settings, store, ahead) as desk:
            if ended.is_set():  # while it was read; nobody may ask it for anything any more
                return 0
            async with serve(desk, paths.socket):
                quiet_collector()
                again = await attend(desk.reconciler, paths, ended)
    if desk.reconciler.stopped.is_set():
        clear(paths)
    return AGAIN if again else 0


async def attend(reconciler: Reconciler, paths: Paths, ended: asyncio.Event) -> bool:
    """Until `down`, a signal, or the loss of the runtime folder (True)."""
    async with asyncio.TaskGroup() as tasks:
        lost = tasks.create_task(vanished(paths))
        waits: list[asyncio.Task[object]] = [
            tasks.create_task(ended.wait()),
            tasks.create_task(reconciler.stopped.wait()),
            lost,
        ]
        resume = tasks.create_task(reconciler.resume())
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if reconciler.stopped.is_set():
            await asyncio.sleep(0.05)  # the last line of progress is on its way
        again = lost.done()
        for task in (*waits, resume):
            task.cancel()
    return again


async def vanished(paths: Paths) -> None:
    """Return when the runtime folder is gone, as at a logout: its sockets cannot be reached any more."""
    while paths.socket.exists():  # noqa: ASYNC110 - a folder that vanishes tells nobody
        await asyncio.sleep(LOOK_S)


def clear(paths: Paths) -> None:
    """After `down` nobody listens in the runtime folder and no proxy needs its credential any more."""
    try:
        for path in paths.runtime.iterdir():
            if not path.is_dir():
                path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("the runtime folder could not be cleared: %s", error)


def use_all_descriptors() -> None:
    """An instance costs a few descriptors (its pidfd, its probe, its proxy's stream)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def without_authorities() -> Iterator[None]:
    """aiohttp reads all of the machine's certificate authorities, twice, whenever it is imported: a tenth of
    control's start. Only an external issuer is ever asked over https, and that brings them itself."""
    before = os.environ.get(AUTHORITIES)
    os.environ[AUTHORITIES] = os.devnull
    try:
        yield
    finally:
        if before is None:
            del os.environ[AUTHORITIES]
        else:
            os.environ[AUTHORITIES] = before


@contextmanager
def locked(paths: Paths) -> Iterator[bool]:
    """Hold the platform's lock; False where another process does."""
    handle = os.open(paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield True
    finally:
        os.close(handle)


def keep_out_of_git(paths: Paths) -> None:
    """State is never committed, whatever the project's own ignore file says."""
    ignore = paths.state.parent / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def refuse(paths: Paths, message: str, way_out: str) -> int:
    """Leave the reason for whoever started control."""
    sys.stderr.write(f"{message} {way_out}".strip() + "\n")
    try:
        paths.start_error.write_text(json.dumps({"message": message, "way_out": way_out, "exit": 1}))
    except OSError:
        pass  # it is in the log
    return 1
