"""The embedded issuer as control holds it: keys, clients, tokens, the socket, and rotation in time.

`keys_changed` is called with the public key set whenever it changes; whoever gives the set to the gateway's
proxy does it there. A new key signs `LEAD_S` after it was published: longer than anybody may cache the set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from idi.declaration.types import Client
from idi.parts.clients import private_file
from idi.parts.errors import PartError
from idi.parts.tokens.embedded.clients import ClientBook
from idi.parts.tokens.embedded.http import KEYS_MAX_AGE_S, HttpServer, add_routes, application
from idi.parts.tokens.embedded.issuer import Granted, Issuer
from idi.parts.tokens.embedded.keys import KeyFile, key_set, new_key
from idi.parts.tokens.embedded.ring import Ring

LEAD_S = 2.0 * KEYS_MAX_AGE_S
ROTATE_EVERY_S = 30 * 86400.0
LOOK_EVERY_S = 30.0


class EmbeddedTokens:
    """An async context manager: entering loads or makes the keys and serves; leaving stops serving.

    `folder` is the key folder, `socket` the path in the runtime folder, `url` the gateway's, `audience`
    what this environment's tokens are for.
    """

    def __init__(
        self,
        folder: Path,
        socket: Path,
        url: str,
        audience: str,
        *,
        clients: Mapping[str, Client],
        token_life_s: float,
        keys_changed: Callable[[str], None] = lambda _jwks: None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        private_file.private_folder(folder)
        self.socket = socket
        self.warning = ""
        """What keeps keys from rotating right now, in a sentence; empty when all is well."""
        self._clock = clock
        self._sleep = sleep
        self._keys_changed = keys_changed
        self._file = KeyFile(folder)
        ring = self._file.load()
        if ring is None:
            ring = Ring((new_key(clock()),))
            self._file.save(ring)
        self._issuer = Issuer(url, audience, ring, ClientBook(folder), token_life_s=token_life_s, clock=clock)
        self._issuer.declare(clients, token_life_s)
        self._told = self.jwks()
        self._server = HttpServer(application(self._issuer, self.jwks), socket)
        self._tasks = asyncio.TaskGroup()
        self._loop: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return self._issuer.url

    @property
    def audience(self) -> str:
        return self._issuer.audience

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        await self._tasks.__aenter__()
        self._loop = self._tasks.create_task(self._run(), name="issuer keys")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            self._loop.cancel()
        try:
            # The body's own error goes on as it is; a cancellation is the group's to account for.
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                await self._tasks.__aexit__(kind, error, trace)
            else:
                await self._tasks.__aexit__(None, None, None)
        finally:
            await self._server.__aexit__(None, None, None)

    # --- what control asks for ---

    def jwks(self) -> str:
        issuer = self._issuer
        return key_set(issuer.ring.published(self._clock(), issuer.overlap_s))

    def declare(self, clients: Mapping[str, Client], token_life_s: float, url: str = "") -> None:
        """Another declaration: clients that are gone lose their secrets, scopes apply at once. `url` is the
        gateway's where that changed; tokens that carry the former one end."""
        if url:
            self._issuer.url = url.rstrip("/")
        self._issuer.declare(clients, token_life_s)
        self._tell()

    def new_secret(self, client: str) -> str:
        """Made, kept hashed and returned this once; the client's former secret ends."""
        return self._issuer.clients.new_secret(client)

    def has_secret(self, client: str) -> bool:
        return self._issuer.clients.has_secret(client)

    def mint(self, subject: str, scopes: Sequence[str], life_s: float) -> Granted:
        return self._issuer.mint(subject, scopes, life_s)

    def mint_as(self, client: str, scopes: Sequence[str], life_s: float) -> Granted:
        return self._issuer.mint_as(client, scopes, life_s)

    def rotate(self) -> float:
        """Publish a new key now; returns when it begins to sign. Tokens that are out stay good."""
        now = self._clock()
        key = new_key(now + LEAD_S)
        self._keep(self._issuer.ring.rotated(key, now, self._issuer.overlap_s))
        return key.signs_from

    @property
    def signing_since(self) -> float:
        return max(self._issuer.ring.signing(self._clock()).signs_from, 0.0)

    @property
    def waiting_until(self) -> float:
        """When a key that is published begins to sign; 0 where none waits."""
        waiting = self._issuer.ring.waiting(self._clock())
        return waiting.signs_from if waiting else 0.0

    def replace(self) -> None:
        """After a leak: one new key, at once. Every token that is out ends, on connections that are open
        at the gateway when its proxy has drained them."""
        self._keep(Ring((new_key(self._clock()),)))

    async def listen(self) -> None:
        """Make the socket again where it is gone (the runtime folder vanished)."""
        await self._server.listen()

    def serve_in(self, app: web.Application) -> None:
        """At another server's routes, too: where the gateway reaches no socket of ours."""
        add_routes(app, self._issuer, self.jwks)

    # --- in time ---

    async def _run(self) -> None:
        while True:
            self.look()
            try:
                await self.listen()
            except PartError as error:
                self.warning = str(error)
            await self._sleep(LOOK_EVERY_S)

    def look(self) -> None:
        """Do what is due by the clock: rotate, stop publishing what has ended."""
        now = self._clock()
        try:
            if self._issuer.ring.is_due(now, ROTATE_EVERY_S):
                self.rotate()
            published = self._issuer.ring.published(now, self._issuer.overlap_s)
            if published != self._issuer.ring.keys:
                self._keep(Ring(published))
            self.warning = ""
        except PartError as error:
            self.warning = str(error)
        self._tell()

    def _keep(self, ring: Ring) -> None:
        self._file.save(ring)
        self._issuer.ring = ring
        self._tell()

    def _tell(self) -> None:
        jwks = self.jwks()
        if jwks != self._told:
            self._told = jwks
            self._keys_changed(jwks)
