"""Keys and requests of workloads: made here, so that a private key never travels to an authority."""

from __future__ import annotations

import re

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from idi.parts.errors import Refused

_WORKLOAD = re.compile(r"[a-z0-9]([-a-z0-9.]{0,62}[a-z0-9])?")


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def request_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """A signing request with no name: the authority takes the identity from the call, not from here."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()


def check_identity(spiffe_id: str, prefix: str) -> None:
    """Only `<prefix><workload>`, one plain segment: an authority's own pattern would let more through."""
    if not spiffe_id.startswith(prefix) or not _WORKLOAD.fullmatch(spiffe_id.removeprefix(prefix)):
        raise Refused(f"{spiffe_id!r} is no identity of this environment ({prefix}<workload>).")


def check_life(life_s: float, longest_s: float) -> None:
    if not 1 <= life_s <= longest_s:
        raise Refused(f"A certificate of {life_s:g} s was asked for; between 1 and {longest_s:g} s may be.")
