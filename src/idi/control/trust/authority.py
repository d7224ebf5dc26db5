"""OpenBao as control keeps it: started, set up, watched, and everybody's certificates renewed by it.

When it is sealed or down nothing else is touched: certificates last, traffic goes on, new instances wait.
`warning` says in one sentence what is the matter.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from idi.control.ahead import NAME, Ahead, process_of
from idi.control.loop import Loop
from idi.control.trust.identities import Identities
from idi.control.trust.rotation import Opened
from idi.control.unless import unless
from idi.declaration.types import Platform
from idi.parts.certificates.openbao import OpenBaoAuthority
from idi.parts.certificates.renewal import Renewal
from idi.parts.clients import private_file
from idi.parts.clients.openbao import OpenBao, Session, State
from idi.parts.clients.openbao_layout import Scope
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.binary import BAO
from idi.parts.secrets.openbao.bootstrap import AnswerLost, Bootstrap
from idi.parts.secrets.openbao.rekey import rotate_credential, rotate_recovery, settle
from idi.parts.secrets.openbao.reroot import Rerooting
from idi.parts.secrets.openbao.seal import SealRotation
from idi.parts.secrets.openbao.server import (
    Places,
    began_with_another_key,
    drop_copy,
    opening,
    prepare,
    put_copy_back,
    wait_for,
)
from idi.parts.secrets.openbao.store import OpenBaoSecrets
from idi.parts.targets.local.part import Part
from idi.parts.targets.local.target import LocalTarget
from idi.world.events import PartChanged
from idi.world.types import Part as PartSeen
from idi.world.types import PartState, World

log = logging.getLogger(__name__)

LOOK_S = 5.0
LOOK_SOON_S = 0.2
OPENED_S = 1.0
"""One that answers and is sealed a second after its start does not open by itself."""
SET_UP_S = 40.0
READY_S = 10.0
TRY_AGAIN_S = 2.0
STARTS_S = 5.0
LONGEST_LEAF_S = 86400.0


@dataclass(slots=True)
class Authority:
    """`start` returns when certificates can be issued; what waited for one is served first."""

    places: Places
    log_file: Path
    target: LocalTarget
    loop: Loop
    identities: Identities
    tasks: asyncio.TaskGroup
    ahead: Ahead
    renewal: Renewal | None = None
    session: Session | None = None
    notice: str = ""
    given_up: str = ""
    _part: Part | None = None
    _keeper: asyncio.Task[None] | None = None
    _up: asyncio.Event = field(default_factory=asyncio.Event)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _stopped: bool = False
    _failure: PartError | None = None
    _life_s: float = 0.0
    _alone: bool = False
    _reopening: bool = False
    _put_back: bool = False
    _sealed: bool = False
    _adopted: bool = False

    async def start(self) -> None:
        """Start or adopt OpenBao, and return when it issues. Idempotent. While it fails `given_up` says why: what
        waits for a certificate need not wait any longer."""
        self.given_up = ""
        try:
            await self._start()
        except PartError as error:
            self.given_up = error.message
            if self._part is None and not self._stopped:
                self.loop.emit(PartChanged(NAME, "failed", time.time(), 0, str(error)))
            self.loop.wake()
            raise

    async def _start(self) -> None:
        async with self._starting:
            if self._keeper is None or self._keeper.done():
                self._up.clear()
                self._failure = None
                if self._part is None:
                    self._part = await self._run()
                self._keeper = self.tasks.create_task(self._keep(self._part))
        await self._up.wait()
        if self._failure is not None:
            raise self._failure
        if not await self.loop.wait(issues, READY_S):  # also of one that was set up long ago
            part = self.loop.world.parts.get(NAME)
            raise PartError(
                f"OpenBao does not issue: {(part.reason if part else '').rstrip('.') or 'no reason known'}.",
                self.way_out(),
            )

    async def take_up(self) -> None:
        """Adopt or start it after a restart of control. What is wrong with it shows in its state, and it is
        tried again until it works or is to stop: nobody has to ask."""
        self._stopped = False
        told = ""
        while not self._stopped:
            try:
                await self.start()
                return
            except PartError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("%s", error)
            await asyncio.sleep(TRY_AGAIN_S)

    async def stop(self) -> None:
        self._stopped = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        self._part = None
        self.session = self.renewal = self.identities.renewal = None
        await self.target.stop_part(NAME)

    async def vault(self) -> OpenBaoSecrets:
        """The store of secrets; waits for it as long as it may be starting. Raises `PartError`."""
        return OpenBaoSecrets(await self._logged_in())

    @asynccontextmanager
    async def rotating(self) -> AsyncIterator[Opened]:
        """What rotates its keys. Raises `PartError` where it is not there now."""
        session, keys = await self._logged_in(), self.places.key_folder
        async with OpenBao(self.places.address) as client:
            try:
                yield Opened(
                    SealRotation(client, self.places, self._reopen),
                    Rerooting(client, keys, self._scope()),
                    partial(settle, client, keys),
                    partial(rotate_recovery, client, keys),
                    partial(rotate_credential, client, keys, session),
                )
            finally:
                self._alone = self._reopening = False

    async def _reopen(self, alone: bool) -> None:
        """End it and let it start again, with the next seal key alone or with both. Whoever needs it waits."""
        if self._part is None:
            raise PartError("OpenBao has just been stopped.")
        self._alone, self._reopening = alone, True
        await self._part.restart("is started again with another seal key")

    async def _logged_in(self) -> Session:
        if not await self.loop.wait(lambda world: self.session is not None and issues(world), STARTS_S):
            part = self.loop.world.parts.get(NAME)
            reason = f": {part.reason.rstrip('.')}" if part and part.reason else ""
            raise PartError(f"OpenBao is {part.state if part else 'absent'}{reason}.", self.way_out())
        if self.session is None:
            raise PartError("OpenBao has just been stopped.")
        return self.session

    def way_out(self) -> str:
        """What helps while it cannot issue."""
        part = self.loop.world.parts.get(NAME)
        if self._sealed and part is not None and self.places.storage.exists():
            return opening(self.places, part.pid)
        return "See idi logs openbao."

    def warning(self) -> str:
        """One sentence when it cannot issue now; empty when all is well (or it is not wanted)."""
        part = self.loop.world.parts.get(NAME)
        if part is None or part.state in ("absent", "ready"):
            return ""
        if part.state != "failed" and not self._up.is_set():
            return ""  # it is only starting
        why = f": {part.reason.rstrip('.')}" if part.reason else ""
        waits = "Traffic goes on; new instances and renewals wait for it."
        return f"OpenBao is {part.state}{why}. {waits} {self.way_out()}"

    def life(self, platform: Platform) -> None:
        """The declared life of certificates; another one than before applies from the next renewal on."""
        if platform.certificates.life_s != self._life_s:
            self._life_s = platform.certificates.life_s
            if self.renewal is not None:
                self.renewal.set_life(self._life_s)

    def renew_first(self) -> None:
        """The machine slept or its clock jumped."""
        if self.renewal is not None:
            self.renewal.wake()

    async def _run(self) -> Part:
        program = BAO.find()

        async def before_start() -> None:
            if self._put_back:
                self._put_back = False
                put_copy_back(self.places)
            prepared = prepare(self.places, program, alone=self._alone)
            self.notice = self.notice or prepared.notice
            for path, content in prepared.files.items():
                private_file.write(Path(path), content)

        process = process_of(self.places, program, self.log_file)
        self._adopted = adopted = not self.ahead.take() and NAME in self.target.recorded_parts()
        part = await self.target.run_part(process, before_start)
        if adopted and part.alive and not self.places.socket.exists():
            await part.restart("was restarted: its socket vanished")
        return part

    async def _keep(self, part: Part) -> None:
        """Set it up, then renew everybody's certificates and watch its health until cancelled."""
        async with OpenBao(self.places.address) as client:
            scope = self._scope()
            try:
                session = await self._set_up(client, scope, part)
            except PartError as error:
                self._failure = error
                self._up.set()
                return
            self.session = session
            authority = OpenBaoAuthority(session, scope)
            async with Renewal(authority, self.identities.deliver, self._life_s) as renewal:
                self.renewal = renewal
                self.identities.begin(renewal)
                await self._watch(client, part)

    async def _set_up(self, client: OpenBao, scope: Scope, part: Part) -> Session:
        """Its session; fails at once where it crashes in a loop."""
        begun = time.time()

        def crashes(world: World) -> bool:
            seen = world.parts.get(NAME)
            return seen is not None and seen.state == "failed" and seen.since >= begun

        crashing = self.loop.wait(crashes, 3 * SET_UP_S)
        session = await unless(self._bootstrap(client, scope, part), crashing)
        if session is None:
            why = self.loop.world.parts[NAME].reason.rstrip(".")
            raise PartError(f"OpenBao does not start: {why}.", "See idi logs openbao.")
        return session

    async def _bootstrap(self, client: OpenBao, scope: Scope, part: Part) -> Session:
        if self.places.before.exists():
            await self._after_a_rotation(client, part)
        bootstrap = Bootstrap(client, self.places.key_folder, scope)
        try:
            return (await bootstrap.run(SET_UP_S)).session
        except AnswerLost as error:
            await part.restart(str(error))  # it is made anew before it starts
            return (await bootstrap.run(SET_UP_S)).session

    async def _after_a_rotation(self, client: OpenBao, part: Part) -> None:
        """A rotation of its keys was interrupted: has it died between two writes that belong together? One that has
        been running since is asked to read them from the disk."""
        if self._adopted:
            await part.restart("was restarted: a rotation of its keys was interrupted")
        try:
            await wait_for(client, {State.ACTIVE}, READY_S)
        except PartError:
            if (await client.health()).state is not State.SEALED:
                raise
            log.warning(
                "OpenBao's store does not open; it is put back as it was before its keys were rotated"
            )
            self._put_back = True
            await part.restart("its store is put back as it was before its keys were rotated")
        else:
            drop_copy(self.places)

    async def _watch(self, client: OpenBao, part: Part) -> None:
        was = ""
        while True:
            health = await client.health()
            self._sealed = health.state is State.SEALED
            ready = health.state is State.ACTIVE
            known = self.loop.world.parts.get(NAME)
            state: PartState = "ready" if ready else "unready"
            reason = "" if ready else f"{health.reason}."
            if known is None or (part.alive and differs(known, state, reason, time.time(), self._sealed)):
                self.loop.emit(PartChanged(NAME, state, time.time(), part.pid, reason))
            begins = known is not None and known.state == "starting"  # it has not made its socket yet
            vanished = not (begins or self._reopening or self.places.socket.exists())
            if not ready and part.alive and vanished and was:
                try:
                    await part.restart("was restarted: its socket vanished")
                except PartError as error:  # it does not end; looked at again, traffic goes on meanwhile
                    log.warning("%s", error)
            if self._sealed and part.alive and not self._reopening and began_with_another_key(self.places):
                try:
                    await part.restart("is started again with the seal key that is there now")
                except PartError as error:
                    log.warning("%s", error)
            if ready and was != "ready" and self.renewal is not None:
                self.given_up = ""
                self.renewal.wake()
            was = "ready" if ready else "unready"
            self._up.set()
            await asyncio.sleep(LOOK_S if ready else LOOK_SOON_S)

    def _scope(self) -> Scope:
        platform = self.loop.platform
        if platform is None:
            raise PartError(
                "Nothing is declared yet, so nobody's certificates can be issued.", retryable=False
            )
        self._life_s = platform.certificates.life_s
        life_s = max(LONGEST_LEAF_S, self._life_s)
        return Scope(platform.trust_domain, platform.environment, life_s)


def issues(world: World) -> bool:
    part = world.parts.get(NAME)
    return part is not None and part.state == "ready"


def differs(known: PartSeen, state: PartState, reason: str, now: float, answers: bool = False) -> bool:
    """Whether a look at its health says something new. One that has just been started may be silent for a while (one
    that `answers` is not), and that it fails to start says more than its silence."""
    if state == "ready" or known.state == "ready":
        return known.state != state
    if known.state == "starting":
        return now - known.since > (OPENED_S if answers else LOOK_S)
    return known.state == "unready" and known.reason != reason
