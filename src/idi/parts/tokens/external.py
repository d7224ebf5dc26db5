"""An issuer that somebody else runs: found by OIDC discovery, checked before anything relies on it."""

from __future__ import annotations

import asyncio
import json
import os
import ssl
from dataclasses import replace
from typing import Any

import aiohttp

from idi.declaration.types import ExternalIssuer
from idi.parts.errors import PartError

BODY_LIMIT = 256 * 1024
TIMEOUT_S = 10.0


async def discover(issuer: ExternalIssuer) -> ExternalIssuer:
    """With its `jwks_url` filled in, and seen to answer with at least one key.

    The document must name the very issuer that was declared: that is what its tokens will say, and what
    keeps one tenant's document from standing in for another's.
    """
    # Its own: aiohttp's was made when control started, without the machine's authorities.
    connector = aiohttp.TCPConnector(ssl=await asyncio.to_thread(ssl.create_default_context))
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        jwks_url = issuer.jwks_url
        if not jwks_url:
            document = await _json(http, f"{issuer.url.rstrip('/')}/.well-known/openid-configuration")
            named = document.get("issuer")
            if named != issuer.url:
                raise PartError(
                    f"The issuer at {issuer.url} calls itself {named!r}.",
                    "Declare exactly that as gateway.issuer.url: its tokens carry it.",
                    retryable=False,
                )
            jwks_url = str(document.get("jwks_uri") or "")
            if not jwks_url.startswith(("https://", "http://")):
                raise PartError(f"The issuer at {issuer.url} names no key set.", retryable=False)
        keys = (await _json(http, jwks_url)).get("keys")
        if not isinstance(keys, list) or not keys:
            raise PartError(f"The key set at {jwks_url} is empty.")
    return replace(issuer, jwks_url=jwks_url)


async def _json(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    try:
        async with http.get(url) as response:
            if response.status != 200:
                raise PartError(f"{url} answered {response.status}.", retryable=response.status >= 500)
            raw = await response.content.read(BODY_LIMIT + 1)
            while len(raw) <= BODY_LIMIT and (more := await response.content.read(BODY_LIMIT)):
                raw += more
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise PartError(f"{url} does not answer: {why(error)}.") from error
    if len(raw) > BODY_LIMIT:
        raise PartError(f"{url} answered more than {BODY_LIMIT} bytes.", retryable=False)
    try:
        value = json.loads(raw)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise PartError(f"{url} is no JSON object.", retryable=False)
    return value


def why(error: Exception) -> str:
    """In words of ours: a library's name its classes and its options."""
    if isinstance(error, TimeoutError):
        return f"not within {TIMEOUT_S:g} s"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be found"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted here"
    if isinstance(error, aiohttp.ClientSSLError):
        return "it does not speak TLS as it should"
    if isinstance(error, aiohttp.InvalidURL):
        return "that is no address"
    if isinstance(error, aiohttp.TooManyRedirects):
        return "it sends from one place to another without end"
    number = error.errno if isinstance(error, OSError) else None
    if number is not None:
        return os.strerror(number).lower()
    return "the connection ended before the answer"
