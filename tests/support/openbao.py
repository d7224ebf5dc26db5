"""A real OpenBao for a test: started as its supervisor will start it, ended by its process id."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from idi.parts.certificates.openbao import OpenBaoAuthority
from idi.parts.clients.openbao import OpenBao, Session, State
from idi.parts.clients.openbao_layout import Scope
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.binary import BAO
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from idi.parts.secrets.openbao.keys import KeyFolder
from idi.parts.secrets.openbao.server import Places, prepare, wait_for
from tests.support.scale import need_part

SCOPE = Scope("shop.idi", "dev", 86400.0)


def need_openbao() -> Path:
    try:
        program: Path | None = BAO.find()
    except PartError as error:
        program, why = None, str(error)
    else:
        why = ""
    need_part("OpenBao", program, why)
    assert program is not None
    return program


class Server:
    """One store and the process on it; the process may come and go."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.places = Places(base / "state", base / "run", base / "keys")
        self.keys = KeyFolder(self.places.keys)
        self.log = base / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.notice = ""
        self.places.runtime.mkdir(mode=0o700)

    def start(self, *, alone: bool = False) -> None:
        assert self.process is None
        spec = prepare(self.places, need_openbao(), alone=alone)
        self.notice = spec.notice
        for path, content in spec.files.items():
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(content)
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                spec.argv, env=dict(spec.environment), stdout=out, stderr=out, stdin=subprocess.DEVNULL
            )

    def stop(self, *, kill: bool = False) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.kill() if kill else process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    async def restart(self, alone: bool = False) -> None:
        self.stop()
        self.start(alone=alone)

    def client(self) -> OpenBao:
        return OpenBao(self.places.address)

    @asynccontextmanager
    async def authority(self) -> AsyncIterator[OpenBaoAuthority]:
        async with self.client() as client:
            ready = await Bootstrap(client, self.keys, SCOPE).run()
            yield OpenBaoAuthority(Session(client, ready.credential), SCOPE)


async def opens(client: OpenBao) -> State:
    """How it stands when it had time to open: one that will is sealed for a moment."""
    try:
        return (await wait_for(client, {State.ACTIVE}, 3.0)).state
    except PartError:
        return (await client.health()).state


@contextmanager
def server() -> Iterator[Server]:
    # Not pytest's folder: a socket's path must be short.
    base = Path(tempfile.mkdtemp(prefix="bao-", dir="/tmp"))
    one = Server(base)
    try:
        yield one
    finally:
        one.stop()
        shutil.rmtree(base, ignore_errors=True)
