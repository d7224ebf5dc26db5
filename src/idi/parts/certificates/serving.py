"""What control's own servers on a cluster prove themselves with, before anybody has an identity.

A pod's sidecar has to know whom it asks for its first certificate, so the root of this small authority lies in a
ConfigMap beside its bootstrap, and not in OpenBao, which may be sealed while pods start. Its key stays in control's
state (0600). It signs names of servers and nothing else (name constraints): whoever steals it is no workload.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from idi.parts.certificates.keys import key_pem, new_key
from idi.parts.clients import private_file
from idi.parts.errors import PartError

ROOT_LIFE = timedelta(days=3650)
LIFE = timedelta(days=7)
SKEW = timedelta(minutes=5)
KEY, ROOT = "serving.key", "serving.crt"


@dataclass(frozen=True, slots=True)
class Served:
    """PEM: the chain, leaf first, and its key. `not_after` is seconds since the epoch."""

    chain: bytes
    key: bytes
    not_after: float

    def __repr__(self) -> str:  # the key must never reach a log through a repr
        return f"Served(not_after={self.not_after})"


class ServingAuthority:
    """Loaded from a private folder, or made there at the first time."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        private_file.private_folder(folder)
        key_file, root_file = folder / KEY, folder / ROOT
        if not key_file.exists() or not root_file.exists():
            key = new_key()
            private_file.write(root_file, self._root(key).public_bytes(Encoding.PEM))
            private_file.write(key_file, key_pem(key))
        try:
            self.root = root_file.read_bytes()
            certificate = x509.load_pem_x509_certificate(self.root)
            loaded = load_pem_private_key(key_file.read_bytes(), None)
        except (OSError, ValueError) as error:
            raise self._unreadable(folder) from error
        if (
            not isinstance(loaded, ec.EllipticCurvePrivateKey)
            or loaded.public_key() != certificate.public_key()
        ):
            raise self._unreadable(folder)
        self._key, self._certificate = loaded, certificate

    def issue(self, names: Sequence[str]) -> Served:
        """A certificate for a server of these names."""
        key, now = new_key(), self._clock()
        alternative = [x509.DNSName(name) for name in names]
        leaf = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + LIFE)
            .add_extension(x509.SubjectAlternativeName(alternative), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        chain = leaf.public_bytes(Encoding.PEM) + self.root
        return Served(chain, key_pem(key), leaf.not_valid_after_utc.timestamp())

    def _root(self, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "IDI control")])
        now = self._clock()
        anywhere = [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")]
        no_workload = x509.NameConstraints(
            permitted_subtrees=None,
            excluded_subtrees=[x509.UniformResourceIdentifier(""), *map(x509.IPAddress, anywhere)],
        )
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - SKEW)
            .not_valid_after(now + ROOT_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(no_workload, critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )

    @staticmethod
    def _unreadable(folder: Path) -> PartError:
        return PartError(
            f"What control's servers prove themselves with cannot be read in {folder}.",
            f"Move {KEY} and {ROOT} away; they are made again, and pods take the new root within minutes.",
            retryable=False,
        )


_SIGNS = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
