"""An external issuer's keys: found once by asking it, and known from then on.

The gateway fetches the keys itself and keeps them, so an issuer that is down for a while must not be in the way of a
change to a module. What was never found has to be found first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from idi.declaration.types import ExternalIssuer, Platform
from idi.parts.errors import PartError

Resolve = Callable[[Platform], Awaitable[Platform]]


async def resolved(
    resolve: Resolve, platform: Platform, before: Platform | None, say: Callable[[str], None]
) -> Platform:
    """The declaration with its issuer's keys found; where the issuer does not answer, with those of `before`, and
    that is said. An issuer that answers something wrong is refused all the same."""
    try:
        return await resolve(platform)
    except PartError as error:
        known = known_keys_url(platform, before)
        if not known or not error.retryable:
            raise
        say(f"{error.message} The gateway goes on with {known}, where its keys were found before.")
        return with_keys_url(platform, known)


def known_keys_url(platform: Platform, before: Platform | None) -> str:
    """Where the keys of this very issuer were found before; empty where it is another one, or ours."""
    now, was = platform.gateway.issuer, before.gateway.issuer if before else None
    if not isinstance(now, ExternalIssuer) or not isinstance(was, ExternalIssuer):
        return ""
    same = now.url == was.url and now.jwks_url in ("", was.jwks_url)
    return was.jwks_url if same else ""


def keys_url_of(platform: Platform) -> str:
    """Where an external issuer's keys were found; empty where the issuer is ours."""
    issuer = platform.gateway.issuer
    return issuer.jwks_url if isinstance(issuer, ExternalIssuer) else ""


def with_keys_url(platform: Platform, url: str) -> Platform:
    """The declaration with what was found before: control starts without asking anybody."""
    issuer = platform.gateway.issuer
    if not isinstance(issuer, ExternalIssuer) or not url:
        return platform
    return replace(platform, gateway=replace(platform.gateway, issuer=replace(issuer, jwks_url=url)))
