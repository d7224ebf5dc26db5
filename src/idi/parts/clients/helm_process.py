"""One run of Helm: what it is given and what it says, both bounded, and an end in any case.

When the caller's time is over, or the caller is cancelled, Helm is asked to stop first, because on SIGTERM it notes a
failed release instead of leaving a locked one; what does not stop then is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

STOP_S = 10.0
MOST_BYTES = 16 * 1024 * 1024
MOST_SAID = 64 * 1024


async def talk(command: Sequence[str], given: str, environment: Mapping[str, str]) -> tuple[int, str, str]:
    """Its exit code, standard output and standard error."""
    child = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,  # a Ctrl-C is the caller's to pass on
    )
    try:
        said, complaint = await _exchanged(child, given.encode())
    finally:
        await _ended(child)
    return child.returncode or 0, said.decode(errors="replace"), complaint.decode(errors="replace")


async def _exchanged(child: asyncio.subprocess.Process, given: bytes) -> tuple[bytes, bytes]:
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    async with asyncio.TaskGroup() as group:
        group.create_task(_give(child.stdin, given))
        said = group.create_task(_all(child.stdout, MOST_BYTES))
        complaint = group.create_task(_all(child.stderr, MOST_SAID))
    await child.wait()
    return said.result(), complaint.result()


async def _give(pipe: asyncio.StreamWriter, given: bytes) -> None:
    try:
        pipe.write(given)
        await pipe.drain()
        pipe.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # it ended before it had read all: its exit code says why


async def _all(pipe: asyncio.StreamReader, most: int) -> bytes:
    """All of it is read, so that Helm never waits for us; what is beyond `most` is dropped."""
    kept = bytearray()
    while piece := await pipe.read(64 * 1024):
        kept += piece[: most - len(kept)]
    return bytes(kept)


async def _ended(child: asyncio.subprocess.Process) -> None:
    """Stop it if it still runs, so that it can note a failure; kill it when that takes too long."""
    if child.returncode is not None:
        return
    try:
        child.terminate()
        async with asyncio.timeout(STOP_S):
            await child.wait()
    except TimeoutError:
        pass
    except ProcessLookupError:
        return
    finally:
        if child.returncode is None:
            child.kill()
    await child.wait()
