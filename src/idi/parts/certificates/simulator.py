"""An authority in memory, for tests of what stands on one: real certificates, no server.

`down` makes every call fail as a sealed authority does; `issued` lists what was asked for. `reroot` adds a root and
signs by it from then on, `forget` leaves the newest alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.keys import check_identity, check_life, key_pem, new_key
from idi.parts.errors import PartError

_SKEW = timedelta(seconds=30)


class SimulatedAuthority:
    def __init__(
        self,
        trust_domain: str,
        environment: str,
        longest_s: float = 86400.0,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.down = ""
        self.issued: list[str] = []
        self._prefix = f"spiffe://{trust_domain}/{environment}/"
        self._longest_s = longest_s
        self._clock = clock
        self._trust_domain, self._environment = trust_domain, environment
        self._roots: list[x509.Certificate] = []
        self.reroot()

    def reroot(self) -> None:
        root_key, self._intermediate_key = new_key(), new_key()
        root_name = _named(f"{self._trust_domain} root {len(self._roots) or ''}".rstrip())
        name = _named(f"{self._trust_domain} {self._environment}")
        self._roots.append(self._authority(root_name, root_name, root_key, root_key, depth=1))
        self._intermediate = self._authority(name, root_name, self._intermediate_key, root_key, depth=0)

    def forget(self) -> None:
        del self._roots[:-1]

    async def roots(self) -> bytes:
        if self.down:
            raise PartError(self.down)
        return b"".join(root.public_bytes(Encoding.PEM) for root in self._roots)

    async def issue(self, spiffe_id: str, life_s: float) -> Certificate:
        check_identity(spiffe_id, self._prefix)
        check_life(life_s, self._longest_s)
        if self.down:
            raise PartError(self.down)
        self.issued.append(spiffe_id)
        key = new_key()
        now = self._now()
        leaf = (
            _begun(x509.Name([]), self._intermediate.subject, key, now, timedelta(seconds=life_s))
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=True
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(sign=True), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(_signed_by(self._intermediate_key), critical=False)
            .sign(self._intermediate_key, hashes.SHA256())
        )
        return Certificate(
            spiffe_id=spiffe_id,
            chain=leaf.public_bytes(Encoding.PEM) + self._intermediate.public_bytes(Encoding.PEM),
            key=key_pem(key),
            roots=await self.roots(),
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
        )

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC).replace(microsecond=0)

    def _authority(
        self,
        name: x509.Name,
        issuer: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        signer: ec.EllipticCurvePrivateKey,
        *,
        depth: int,
    ) -> x509.Certificate:
        return (
            _begun(name, issuer, key, self._now(), timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
            .add_extension(_usage(sign=False), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(_signed_by(signer), critical=False)
            .sign(signer, hashes.SHA256())
        )


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _begun(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _signed_by(signer: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())


def _usage(*, sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not sign,
        crl_sign=not sign,
        encipher_only=False,
        decipher_only=False,
    )
