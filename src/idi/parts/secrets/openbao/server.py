"""How OpenBao is started, and how one waits for it.

It listens on a Unix socket (0600) in the runtime folder and nowhere else that would answer. Its raft
storage insists on a TCP listener to hang its cluster port on, even for a single server, so there is one:
loopback, a port the system chooses, and it trusts only a sender (192.0.2.1, reserved for documentation)
that can never connect, so that every connection is closed before a byte is read. The cluster port behind
it takes only TLS connections with a certificate that OpenBao keeps inside its own store.

The seal is `static`: a key file of the user's, so that a restart opens the store without a person, and
whoever has the state folder alone has nothing. While that key is being rotated OpenBao is given both: it
opens with either, and closes with the next one (`seal`).

`performance_multiplier` 1 is raft's own speed; the default waits ten seconds for peers that do not exist.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from idi.parts.clients import private_file
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.keys import KeyFolder, key_id

if TYPE_CHECKING:  # what starts it needs no client
    from idi.parts.clients.openbao import Health, OpenBao, State

_NOBODY = "192.0.2.1"
_SOCKET = "bao.sock"
_SOCKET_PATH_LIMIT = 104


@dataclass(frozen=True, slots=True)
class Places:
    """`state` is the platform's state folder, `runtime` its short folder for sockets, `keys` the key
    folder outside the checkout, `seal` the seal key where that is not in there."""

    state: Path
    runtime: Path
    keys: Path
    seal: Path | None = None

    @property
    def key_folder(self) -> KeyFolder:
        return KeyFolder(self.keys, self.seal)

    @property
    def storage(self) -> Path:
        return self.state / "openbao"

    @property
    def before(self) -> Path:
        """The store as it was before its seal key began to rotate."""
        return self.state / "openbao.before"

    @property
    def socket(self) -> Path:
        return self.runtime / _SOCKET

    @property
    def config(self) -> Path:
        return self.runtime / "openbao.hcl"

    @property
    def address(self) -> str:
        return f"unix:{self.socket}"


@dataclass(frozen=True, slots=True)
class ServerSpec:
    """What to run: `files` (path -> bytes) are written with mode 0600 first; `environment` is all of it,
    nothing is inherited, so that no variable of the user's changes what listens. Output goes to a file
    that the supervisor owns and rotates. `notice` is a line for the user, on the first start only."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, bytes] = field(default_factory=dict)
    notice: str = ""


def prepare(places: Places, program: Path, *, alone: bool = False) -> ServerSpec:
    """Everything that must be there before a start. Call it only while no server runs on this store. `alone`: with
    the next seal key and without the present one, to see whether that is enough."""
    if len(os.fsencode(places.socket)) >= _SOCKET_PATH_LIMIT:
        raise PartError(
            f"The socket's path {places.socket} is too long.",
            "Use a shorter runtime folder.",
            retryable=False,
        )
    keys = places.key_folder
    keys.make()
    if keys.answer_was_lost():
        shutil.rmtree(places.storage, ignore_errors=True)
    if _has_store(places) and not keys.seal_key.exists():
        raise PartError(
            f"The store in {places.storage} has no seal key: {keys.seal_key} is gone.",
            "Put the key back from your copy. Without it nothing in the store can be read; to begin anew, "
            f"move {places.storage} away.",
            retryable=False,
        )
    if places.before.exists() and not _has_store(places):  # it was to be put back, and half of that was done
        with told("OpenBao's store cannot be put back"):
            shutil.rmtree(places.storage, ignore_errors=True)
            places.before.rename(places.storage)
    first = keys.make_seal_key()
    places.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    places.storage.chmod(0o700)
    if keys.next_seal_key.exists():
        keep_copy(places)
    notice = (
        f"OpenBao's seal key and recovery key are in {places.keys}: keep a copy elsewhere, the store "
        "cannot be opened without the seal key."
    )
    return replace(
        server_spec(places, program),
        files={str(places.config): render(places, keys, alone=alone).encode()},
        notice=notice if first else "",
    )


def keep_copy(places: Places) -> None:
    """The store as it is, once: the step that follows is OpenBao's own and not one write."""
    if places.before.exists():
        return
    half_done = places.before.with_suffix(".new")
    shutil.rmtree(half_done, ignore_errors=True)
    with told("OpenBao's store cannot be copied before its keys are rotated"):
        shutil.copytree(places.storage, half_done)
        half_done.rename(places.before)
        private_file.sync_folder(places.state)


def drop_copy(places: Places) -> None:
    if places.before.exists():
        done = places.before.with_suffix(".done")
        shutil.rmtree(done, ignore_errors=True)
        with told("The copy of OpenBao's store cannot be removed"):
            places.before.rename(done)
            shutil.rmtree(done)


def put_copy_back(places: Places) -> None:
    """Where the store does not open any more; what lay there is set aside. Call it only while no server runs."""
    number = 1
    while (aside := places.state / f"openbao.broken-{number}").exists():
        number += 1
    with told("OpenBao's store cannot be put back"):
        places.storage.rename(aside)
        places.before.rename(places.storage)
        private_file.sync_folder(places.state)


@contextmanager
def told(what: str) -> Iterator[None]:
    """A disk that does not take it, said as what it is."""
    try:
        yield
    except OSError as error:  # shutil's own is one
        raise PartError(
            f"{what}: {error.strerror or 'the disk is full or a file cannot be read'}.", "Make room for it."
        ) from error


def server_spec(places: Places, program: Path) -> ServerSpec:
    """What to run, touching nothing: also for a server that runs already. Its files are `prepare`'s."""
    return ServerSpec(
        argv=(str(program), "server", f"-config={places.config}"),
        environment={
            "PATH": "/usr/bin:/bin",
            "HOME": str(places.storage),
            # It is idle but for a signature now and then: give memory back rather than keep it.
            "GOGC": "50",
        },
    )


def opens_by_itself(places: Places) -> bool:
    """Whether it was set up before and everything that opens it is there: a start asks for nothing."""
    keys = places.key_folder
    return (
        _has_store(places)
        and keys.seal_key.exists()
        and not keys.answer_was_lost()
        and keys.set_up() is not None
    )


def _has_store(places: Places) -> bool:
    return (places.storage / "vault.db").exists()


def seal(places: Places, keys: KeyFolder, *, alone: bool) -> str:
    text = json.dumps  # its strings are HCL's
    given = [(name_of(places, keys.seal_key), keys.seal_key)]
    if keys.next_seal_key.exists():
        given.insert(0, (key_id(keys.next_seal_key), keys.next_seal_key))
    return "\n".join(
        f"  {which}_key_id = {text(name)}\n  {which}_key    = {text(f'file://{path}')}"
        for which, (name, path) in zip(
            ("current",) if alone else ("current", "previous"), given, strict=False
        )
    )


FIRST_NAME = "idi-1"
"""What the seal key was called before it was called by what it is (`key_id`). OpenBao notes the name beside what it
closed, and closes under another one only with another key: until then the store goes on by this one."""


def name_of(places: Places, key: Path) -> str:
    name, held = key_id(key), _held(places)
    return FIRST_NAME if name.encode() not in held and b"\x05" + FIRST_NAME.encode() in held else name


def _held(places: Places) -> bytes:
    store = places.storage / "vault.db"
    return store.read_bytes() if store.exists() else b""


def began_with_another_key(places: Places) -> bool:
    """Whether the seal key is not the one that the server which runs was given: it reads it only when it starts."""
    keys = places.key_folder
    try:
        return keys.seal_key.exists() and render(places, keys) != places.config.read_text()
    except OSError:
        return False


def opening(places: Places, pid: int) -> str:
    """What opens a store that is sealed."""
    keys = places.key_folder
    key = keys.seal_key
    try:
        tried = [key, *([keys.next_seal_key] if keys.next_seal_key.exists() else [])]
        fits = any(name_of(places, one).encode() in _held(places) for one in tried)
    except OSError:
        fits = False
    if fits:
        return f"Its seal key is the right one, so it was sealed by hand: end process {pid}, it opens when it starts."
    return f"{key} is not the key that it was closed with. Put that back from your copy: it opens by itself then."


def render(places: Places, keys: KeyFolder, *, alone: bool = False) -> str:
    text = json.dumps
    return f"""\
# Written by IDI at each start.
cluster_name = "idi"
api_addr     = "http://127.0.0.1:0"
cluster_addr = "https://127.0.0.1:0"
ui           = false
log_level    = "warn"

seal "static" {{
{seal(places, keys, alone=alone)}
}}

storage "raft" {{
  path                   = {text(str(places.storage))}
  node_id                = "idi"
  performance_multiplier = 1
}}

listener "unix" {{
  address      = {text(str(places.socket))}
  socket_mode  = "0600"
  socket_user  = "{os.getuid()}"
  socket_group = "{os.getgid()}"
  # Off by default; it asks for the recovery key, and for being the socket's owner.
  disable_unauthed_generate_root_endpoints = false
}}

# Raft wants a TCP listener; this one closes every connection.
listener "tcp" {{
  address                         = "127.0.0.1:0"
  cluster_address                 = "127.0.0.1:0"
  tls_disable                     = true
  proxy_protocol_behavior         = "deny_unauthorized"
  proxy_protocol_authorized_addrs = "{_NOBODY}"
}}
"""


async def wait_for(client: OpenBao, states: Collection[State], timeout_s: float = 20.0) -> Health:
    """Until OpenBao is in one of these states; else a `PartError` with its last word."""
    deadline = time.monotonic() + timeout_s
    pause = 0.01
    while True:
        health = await client.health()
        if health.state in states:
            return health
        if time.monotonic() >= deadline:
            raise PartError(
                f"OpenBao was not ready within {timeout_s:g} s: {health.reason}.",
                "Its log says why (`idi logs openbao`).",
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.03)
