"""The certificates of a cluster: one authority, a pair for each component, its kubeconfig."""

from __future__ import annotations

import base64
import ipaddress
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.support.cluster.private import write_private

LIFE = timedelta(days=30)
SKEW = timedelta(minutes=5)


class Authority:
    """Signs for this cluster alone; everything is a file in its folder, which only root may read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-cluster")])
        uses = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        certificate = (
            _builder(name, name, self._key.public_key())
            .add_extension(x509.BasicConstraints(True, None), True)
            .add_extension(uses, True)
            .sign(self._key, hashes.SHA256())
        )
        self._name = name
        self._write("ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
        # Service account tokens are signed with it; RSA is what every verifier of theirs takes.
        accounts = rsa.generate_private_key(65537, 2048)
        self._write("sa.key", _private(accounts))
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        self._write("sa.pub", accounts.public_key().public_bytes(serialization.Encoding.PEM, form))

    def path(self, name: str) -> str:
        return str(self.folder / name)

    def pair(
        self,
        name: str,
        subject: str,
        groups: Sequence[str] = (),
        *,
        names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> None:
        """NAME.crt and NAME.key, good for a client and for a server."""
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        whole = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, subject)])
        purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = _builder(whole, self._name, key.public_key()).add_extension(purposes, False)
        others: list[x509.GeneralName] = [x509.DNSName(one) for one in names]
        others += [x509.IPAddress(ipaddress.ip_address(one)) for one in addresses]
        if others:
            builder = builder.add_extension(x509.SubjectAlternativeName(others), False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._write(f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))
        self._write(f"{name}.key", _private(key))

    def kubeconfig(self, name: str, server: str) -> str:
        """What a client with this pair is given, as text (JSON is YAML)."""

        def data(file: str) -> str:
            return base64.b64encode((self.folder / file).read_bytes()).decode()

        user = {"client-certificate-data": data(f"{name}.crt"), "client-key-data": data(f"{name}.key")}
        cluster = {"server": server, "certificate-authority-data": data("ca.crt")}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        }
        return json.dumps(document, indent=1)

    def _write(self, name: str, content: bytes) -> None:
        write_private(self.folder / name, content)


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + LIFE)
    )
