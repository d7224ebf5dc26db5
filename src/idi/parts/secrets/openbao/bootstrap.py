"""From an empty store to one that issues certificates, from any point in between.

Each step looks and then makes what is missing, so the whole is repeated after a crash anywhere. What must
not be lost is on disk before it is needed: the recovery key before anything is built, the credential
before the root token goes. A set-up that is complete is recognised without any privilege, by the store's
own id and a digest of all that it configures, so that a usual start asks for no root token at all; a newer
IDI that configures more, or an intermediate near its end, makes the digest or the date differ and the
steps run again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from idi.parts.clients.openbao import AppRole, Health, OpenBao, OpenBaoRefused, Session, State
from idi.parts.clients.openbao_layout import KV_MOUNT, LEAF_MOUNT, Scope
from idi.parts.errors import PartError
from idi.parts.secrets.openbao import access, pki
from idi.parts.secrets.openbao.keys import KeyFolder, Recovery, SetUp
from idi.parts.secrets.openbao.rekey import settle
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from idi.parts.secrets.openbao.server import wait_for

LAYOUT = 1
"""Raised when a step changes that the digest does not see."""

STEPS = (
    "announced",
    "initialised",
    "recovery kept",
    "root borrowed",
    "root authority",
    "intermediate",
    "role",
    "stores",
    "access",
    "credential kept",
    "credential proven",
    "root revoked",
    "recorded",
)
"""In the order of a first start; a test stops after each."""


class AnswerLost(PartError):
    """The store was made but a crash took its recovery key: it is empty, and made anew by stopping the
    server and preparing its start again (`prepare`)."""


@dataclass(frozen=True, slots=True)
class Ready:
    """`session` is logged in; `changed`: a set-up ran (else everything was there)."""

    session: Session
    changed: bool

    @property
    def credential(self) -> AppRole:
        return self.session.credential


class Bootstrap:
    """`reached` is called after each of `STEPS`."""

    def __init__(
        self,
        client: OpenBao,
        keys: KeyFolder,
        scope: Scope,
        *,
        reached: Callable[[str], None] = lambda _step: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._keys = keys
        self._scope = scope
        self._reached = reached
        self._clock = clock

    async def run(self, timeout_s: float = 30.0) -> Ready:
        health = await wait_for(self._client, {State.UNINITIALISED, State.ACTIVE}, timeout_s)
        root = ""
        if health.state is State.UNINITIALISED:
            root = await self._initialise()
            health = await wait_for(self._client, {State.ACTIVE}, timeout_s)
        elif self._keys.answer_was_lost():
            raise AnswerLost(
                "OpenBao's first start was interrupted before its recovery key was kept.",
                "It holds nothing yet: stop it and start again, it is made anew.",
            )
        elif (session := await self._complete(health)) is not None:
            return Ready(session, changed=False)
        return Ready(await self._set_up(health, root), changed=True)

    async def _initialise(self) -> str:
        self._keys.begin_initialising()
        self._reached("announced")
        made = await self._client.call("PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
        self._reached("initialised")
        self._keys.keep_recovery(Recovery(tuple(str(key) for key in made["recovery_keys_base64"])))
        self._reached("recovery kept")
        return str(made["root_token"])

    async def _complete(self, health: Health) -> Session | None:
        """A session, where this store's set-up is the wanted one and whole."""
        credential = self._keys.control()
        if credential is None or self._keys.set_up() != SetUp(health.cluster_id, self._digest()):
            return None
        session = Session(self._client, credential)
        end, accepted = await asyncio.gather(pki.authority_end(self._client, LEAF_MOUNT), accepts(session))
        if not accepted or pki.intermediate_is_due(end, self._clock()):
            return None
        return session

    async def _set_up(self, health: Health, root: str) -> Session:
        client, scope, reached = self._client, self._scope, self._reached
        if not root:
            await settle(client, self._keys)
            root = await make_root_token(client, self._keys.need_recovery("A change of OpenBao's set-up"))
        reached("root borrowed")
        await pki.ensure_root(client, root, scope)
        reached("root authority")
        await pki.ensure_intermediate(client, root, scope, self._clock())
        reached("intermediate")
        await pki.ensure_role(client, root, scope)
        reached("role")
        await pki.ensure_mount(client, root, KV_MOUNT, "kv", options={"version": "2"})
        reached("stores")
        await access.ensure_access(client, root)
        reached("access")
        credential = await access.make_credential(client, root)
        self._keys.keep_control(credential)
        reached("credential kept")
        session = Session(client, credential)
        await session.login()
        await access.forget_others(client, root, credential)
        reached("credential proven")
        await revoke_root_tokens(client, root)
        reached("root revoked")
        self._keys.keep_set_up(SetUp(health.cluster_id, self._digest()))
        reached("recorded")
        return session

    def _digest(self) -> str:
        wanted = [LAYOUT, pki.role(self._scope), access.POLICY, access.APPROLE, pki.ROOT_LIFE_H]
        return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


async def accepts(session: Session) -> bool:
    """Whether OpenBao takes the credential."""
    try:
        await session.login()
    except OpenBaoRefused:
        return False
    return True
