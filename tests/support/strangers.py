"""Whoever knocks at a mesh port: with a real certificate of some workload, with somebody else's, or with none."""

from __future__ import annotations

import socket
import ssl
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.keys import key_pem
from idi.parts.certificates.openbao import OpenBaoAuthority
from idi.parts.clients.openbao import OpenBao, Session
from idi.parts.clients.openbao_layout import SIGN_PATH, Scope
from idi.parts.secrets.openbao.keys import KeyFolder
from tests.support.platform import Platform

TIMEOUT_S = 5.0


def scope_of(trust_domain: str) -> Scope:
    return Scope(trust_domain, "dev", 86400.0)


async def issue(one: Platform, trust_domain: str, workload: str, life_s: float = 3600.0) -> Certificate:
    """A certificate from the platform's own authority, with control's own credential."""
    credential = KeyFolder(one.paths.keys).control()
    assert credential is not None
    async with OpenBao(f"unix:{one.paths.runtime / 'bao.sock'}") as client:
        authority = OpenBaoAuthority(Session(client, credential), scope_of(trust_domain))
        return await authority.issue(f"spiffe://{trust_domain}/dev/{workload}", life_s)


async def ask_authority(
    one: Platform, method: str, path: str, body: dict[str, object] | None = None
) -> object:
    """Anything at all of the platform's authority, with control's own credential."""
    credential = KeyFolder(one.paths.keys).control()
    assert credential is not None
    async with OpenBao(f"unix:{one.paths.runtime / 'bao.sock'}") as client:
        return await Session(client, credential).call(method, path, body)


def self_made(spiffe_id: str, roots: bytes) -> Certificate:
    """The right name, signed by nobody whom the platform trusts."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(spiffe_id)]), critical=True
        )
        .sign(key, hashes.SHA256())
    )
    return Certificate(spiffe_id, made.public_bytes(Encoding.PEM), key_pem(key), roots, 0.0, 0.0)


@dataclass(frozen=True)
class Answer:
    """`status` 0: there was none; `why` is what happened instead."""

    status: int
    why: str = ""


def context(shown: Certificate | None, roots: bytes) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(cadata=roots.decode())
    made.set_alpn_protocols(["http/1.1"])
    if shown is not None:
        with tempfile.NamedTemporaryFile(suffix=".pem") as file:
            Path(file.name).write_bytes(shown.key + shown.chain)
            made.load_cert_chain(file.name)
    return made


def knock(port: int, shown: Certificate | None, roots: bytes, path: str = "/ready") -> Answer:
    """An HTTP request over TLS with this certificate (None: without)."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain,
            context(shown, roots).wrap_socket(plain) as tls,
        ):
            return read_status(tls, path)
    except (ssl.SSLError, ConnectionError) as error:
        return Answer(0, type(error).__name__)


def knock_plainly(port: int, path: str = "/ready") -> Answer:
    """The same without TLS."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain:
            return read_status(plain, path)
    except ConnectionError as error:
        return Answer(0, type(error).__name__)


def read_status(connection: socket.socket, path: str) -> Answer:
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    answer = b""
    while b"\r\n" not in answer:
        part = connection.recv(4096)
        if not part:
            return Answer(0, "closed")
        answer += part
    if not answer.startswith(b"HTTP/1.1 "):
        return Answer(0, "no HTTP")
    return Answer(int(answer.split(b" ", 2)[1]))


def say(port: int, shown: Certificate | None, roots: bytes, line: bytes = b"hello\n") -> bytes:
    """What a tcp port answers to a line over TLS (or says by itself); nothing where it hangs up."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as plain,
            context(shown, roots).wrap_socket(plain) as tls,
        ):
            tls.sendall(line)
            return tls.recv(4096)
    except (ssl.SSLError, ConnectionError):
        return b""


__all__ = [
    "SIGN_PATH", "Answer", "ask_authority", "issue", "knock", "knock_plainly", "say", "scope_of", "self_made",
]  # fmt: skip
