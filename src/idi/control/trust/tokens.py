"""Tokens and client secrets for people: what `idi token` asks for.

An operator's own token carries every scope of the environment (or those asked for); its subject says that
it is an operator's. What is done in a client's name, and every new secret, is noted in the journal; the
secret itself is in the answer and, hashed, with the issuer, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from idi.api.types import TokenRequest, TokenView
from idi.control.wording import did_you_mean
from idi.declaration.types import ExternalIssuer, Platform
from idi.parts.errors import Refused
from idi.parts.store.interface import Actor, Store

OPERATOR_LIFE_S = 300.0
LONGEST_LIFE_S = 3600.0


class Granted(Protocol):
    @property
    def access_token(self) -> str: ...

    @property
    def scope(self) -> str: ...

    @property
    def expires_in(self) -> int: ...


class Tokens(Protocol):
    """What control needs of an issuer of its own."""

    def mint(self, subject: str, scopes: Sequence[str], life_s: float) -> Granted: ...

    def mint_as(self, client: str, scopes: Sequence[str], life_s: float) -> Granted: ...

    def new_secret(self, client: str) -> str: ...


async def give_token(
    request: TokenRequest, actor: Actor, platform: Platform | None, tokens: Tokens, store: Store
) -> TokenView:
    """A token, or a client's new secret; raises `Refused` with the way out."""
    if platform is None:
        raise Refused("Nothing is declared yet.", "Run idi up first.")
    if isinstance(platform.gateway.issuer, ExternalIssuer):
        raise Refused(
            f"Tokens of this environment come from {platform.gateway.issuer.url}.", "Ask that issuer for one."
        )
    client = request.get("client", "")
    declared = platform.gateway.clients
    if client and client not in declared:
        hint = did_you_mean(client, declared) or f" There are {', '.join(declared) or 'none'}."
        raise Refused(f"No client is called '{client}'.{hint}", "Declare it under gateway.clients.")
    if request.get("new_secret"):
        if not client:
            raise Refused("A new secret needs a client.", "Add --client.")
        # First the note: a journal that takes nothing must not cost the client the secret that it has.
        await store.note(actor, "client-secret", {}, subject=client)
        return {"client_id": client, "client_secret": tokens.new_secret(client)}
    life_s = request.get("ttl_s") or OPERATOR_LIFE_S
    if not 1.0 <= life_s <= LONGEST_LIFE_S:
        raise Refused(f"A token of {life_s:g} s is out of range.", "Ask for 1s to 1h.")
    may = declared[client].scopes if client else platform.every_scope()
    wanted = tuple(request.get("scopes") or may)
    beyond = sorted(set(wanted) - set(may))
    if beyond:
        who = f"Client '{client}'" if client else "Nobody in this environment"
        hint = did_you_mean(beyond[0], may)
        raise Refused(
            f"{who} has the scope '{beyond[0]}'.{hint}"
            if not client
            else f"{who} does not have the scope '{beyond[0]}'.{hint}"
        )
    if client:
        await store.note(actor, "client-token", {"scopes": list(wanted)}, subject=client)
        granted = tokens.mint_as(client, wanted, life_s)
    else:
        granted = tokens.mint(f"operator:{actor.name}", wanted, life_s)
    return {"token": granted.access_token, "expires_in": granted.expires_in, "scope": granted.scope}
