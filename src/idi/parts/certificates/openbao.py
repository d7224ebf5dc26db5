"""Certificates from OpenBao's PKI.

The key is made here and only a signing request goes over. The roots come from the authority's own list of
issuers, read without a token and kept for a minute, so that a root that is added while the platform runs
is trusted by every certificate issued after that.

At most `CONCURRENT` requests are under way, a failure that may pass is tried a few times, and what comes
back is compared with what was asked for: an authority that answers with another identity or key is a
failure, not a certificate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.keys import check_identity, check_life, key_pem, new_key, request_pem
from idi.parts.clients.openbao import OpenBaoRefused, Session
from idi.parts.clients.openbao_layout import ROOT_MOUNT, SIGN_PATH, Scope
from idi.parts.errors import PartError

CONCURRENT = 8
_PAUSES_S = (0.05, 0.2, 0.8)
_ROOTS_KEPT_S = 60.0


class OpenBaoAuthority:
    def __init__(
        self,
        session: Session,
        scope: Scope,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._scope = scope
        self._sleep = sleep
        self._monotonic = monotonic
        self._gate = asyncio.Semaphore(CONCURRENT)
        self._reading_roots = asyncio.Lock()
        self._roots = b""
        self._roots_until = 0.0

    async def issue(self, spiffe_id: str, life_s: float) -> Certificate:
        check_identity(spiffe_id, self._scope.prefix)
        check_life(life_s, self._scope.life_s)
        async with self._gate:
            for pause in (*_PAUSES_S, None):
                try:
                    return await self._once(spiffe_id, life_s)
                except PartError as error:
                    if pause is None or not error.retryable:
                        raise
                await self._sleep(pause)
        raise AssertionError("unreachable")

    async def roots(self) -> bytes:
        async with self._reading_roots:  # read by somebody else just now, it could be that of before
            self._roots_until = 0.0
        return await self._trusted()

    async def _once(self, spiffe_id: str, life_s: float) -> Certificate:
        key = new_key()
        body = {"csr": request_pem(key), "uri_sans": spiffe_id, "ttl": f"{int(life_s)}s"}
        # Beside each other: while a platform starts, each answer waits for its turn for a long time.
        data, roots = await asyncio.gather(self._sign(body), self._trusted())
        leaf = x509.load_pem_x509_certificate(str(data["certificate"]).encode())
        _check_answer(leaf, key, spiffe_id)
        return Certificate(
            spiffe_id=spiffe_id,
            chain=_chain(leaf, data.get("ca_chain") or [data["issuing_ca"]]),
            key=key_pem(key),
            roots=roots,
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
        )

    async def _sign(self, body: dict[str, str]) -> dict[str, Any]:
        try:
            data: dict[str, Any] = (await self._session.call("POST", SIGN_PATH, body))["data"]
        except OpenBaoRefused as error:
            if error.status == 403:
                raise PartError(
                    "OpenBao does not accept the control process's credential.",
                    "The next start makes it again from the recovery key.",
                    retryable=False,
                ) from error
            raise
        return data

    async def _trusted(self) -> bytes:
        async with self._reading_roots:
            if not self._roots or self._monotonic() >= self._roots_until:
                self._roots = await self._read_roots()
                self._roots_until = self._monotonic() + _ROOTS_KEPT_S
        return self._roots

    async def _read_roots(self) -> bytes:
        client = self._session.client
        roots: set[bytes] = set()
        for issuer in await client.listing(f"{ROOT_MOUNT}/issuers"):
            found = await client.read(f"{ROOT_MOUNT}/issuer/{issuer}/json")
            if found is not None:
                roots.add(_normal(str(found["data"]["certificate"])))
        if not roots:
            raise PartError("OpenBao has no root certificate.", "Start the platform again.", retryable=False)
        return b"".join(sorted(roots))


def _check_answer(leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey, spiffe_id: str) -> None:
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if list(names) != [x509.UniformResourceIdentifier(spiffe_id)] or leaf.public_key() != key.public_key():
        raise PartError(f"OpenBao signed something else than {spiffe_id}.", retryable=False)


def _chain(leaf: x509.Certificate, authorities: list[Any]) -> bytes:
    """Leaf, then the intermediates; a root is known to whoever checks, so it is left out."""
    above = [x509.load_pem_x509_certificate(str(pem).encode()) for pem in authorities]
    return b"".join(
        certificate.public_bytes(Encoding.PEM)
        for certificate in (leaf, *(each for each in above if each.issuer != each.subject))
    )


def _normal(pem: str) -> bytes:
    return x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.PEM)
