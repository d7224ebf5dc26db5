"""Another seal key for a store that is in use.

What lies in the store is encrypted with data keys, these with the root key, and the root key with the seal key.
Given two seal keys at a start, OpenBao opens with whichever fits and, before it answers anybody, closes its root
key and its recovery key with the current one. That it fails to do so it only logs. So the next key counts when the
store has been opened with it alone, and the former one stays in its place until then.

The former seal key opens the former root key wherever an old copy of that lies: in a backup, and in OpenBao's own
log of changes. So the root key and the data key are rotated as well: what is written from then on cannot be read
with anything that the former seal key opens. OpenBao stores a new root key in two writes. Dying between them it
could never be opened again; a copy of the store, made while it stood still, lies beside it until the end.

Each step looks at the files alone, so the whole is repeated after a crash anywhere. OpenBao is started twice.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from idi.parts.clients.openbao import OpenBao, State
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.keys import Recovery
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from idi.parts.secrets.openbao.server import Places, drop_copy, wait_for

OPENS_S = 20.0

STEPS = (
    "made",
    "opened with both",
    "root key",
    "data key",
    "opened alone",
    "proven",
    "copy dropped",
    "taken",
)
"""A test stops after each."""


class SealRotation:
    """`restart` ends OpenBao and starts it as `prepare` says (its `alone` is the argument); `reached` is called after
    each of `STEPS`."""

    def __init__(
        self,
        client: OpenBao,
        places: Places,
        restart: Callable[[bool], Awaitable[None]],
        *,
        reached: Callable[[str], None] = lambda _step: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._places = places
        self._keys = places.key_folder
        self._restart = restart
        self._reached = reached
        self._clock = clock

    def check(self) -> Recovery:
        """Raises where it cannot be begun."""
        return self._keys.need_recovery("The seal key's rotation")

    @property
    def next_is_anothers(self) -> bool:
        return self._keys.next_is_anothers

    def make(self) -> None:
        """The next key is on disk."""
        self._keys.make_next_seal_key()
        self._reached("made")

    async def rewrap(self) -> None:
        """Everything is closed with the next key."""
        recovery = self.check()
        earlier = self._places.before.exists()
        await self._open(alone=False)
        if earlier:  # a rotation that was interrupted left that copy; the store has opened without it
            drop_copy(self._places)
            await self._open(alone=False)
        self._reached("opened with both")
        token = await make_root_token(self._client, recovery)
        await self._client.write("sys/rotate/root", token=token)
        self._reached("root key")
        await self._client.write("sys/rotate/keyring", token=token)
        self._reached("data key")
        await revoke_root_tokens(self._client, token)

    async def prove(self) -> None:
        """The next key alone opens the store, and what belongs to the recovery key in it."""
        recovery = self.check()
        try:
            await self._open(alone=True)
            self._reached("opened alone")
            await revoke_root_tokens(self._client, await make_root_token(self._client, recovery))
        except PartError as error:
            await self._open(alone=False)
            raise PartError(
                f"The store does not open with the next seal key alone: {error.message.rstrip('.')}.",
                "Both keys stay where they are, and it opens with both; run it again.",
            ) from error
        self._reached("proven")

    def take(self) -> Path | None:
        """It is the seal key; returns where the former lies now, None where none is kept."""
        drop_copy(self._places)
        self._reached("copy dropped")
        kept = self._keys.take_next_seal_key(self._clock())
        self._reached("taken")
        return kept

    async def _open(self, *, alone: bool) -> None:
        await self._restart(alone)
        await wait_for(self._client, {State.ACTIVE}, OPENS_S)
