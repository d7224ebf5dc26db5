"""What every certificate authority must do: the simulator and a real OpenBao run the same tests."""

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from idi.parts.certificates.interface import Certificate, CertificateAuthority
from idi.parts.certificates.simulator import SimulatedAuthority
from idi.parts.errors import Refused
from idi.parts.secrets.openbao.reroot import Rerooting
from tests.support import openbao

pytestmark = pytest.mark.requirement("S4")

JEDE = "spiffe://shop.idi/dev/jede"
CAM = "spiffe://shop.idi/dev/cam"


@pytest.fixture(scope="module")
def running() -> Iterator[openbao.Server]:
    with openbao.server() as server:
        server.start()
        yield server


@pytest.fixture(params=["simulator", "openbao"])
async def authority(request: pytest.FixtureRequest) -> AsyncIterator[CertificateAuthority]:
    if request.param == "simulator":
        yield SimulatedAuthority("shop.idi", "dev")
        return
    async with request.getfixturevalue("running").authority() as real:
        yield real


def leaf_of(certificate: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificates(certificate.chain)[0]


async def test_a_leaf_carries_its_identity_and_no_other_name(authority: CertificateAuthority) -> None:
    certificate = await authority.issue(JEDE, 3600)
    leaf = leaf_of(certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(JEDE)]
    assert list(leaf.subject) == []
    assert certificate.spiffe_id == JEDE


async def test_a_leaf_is_for_both_ends_of_a_connection_and_nothing_else(
    authority: CertificateAuthority,
) -> None:
    leaf = leaf_of(await authority.issue(JEDE, 3600))
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    key_usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage.digital_signature
    assert not key_usage.key_cert_sign


async def test_the_chain_leads_from_the_leaf_to_a_root(authority: CertificateAuthority) -> None:
    certificate = await authority.issue(JEDE, 3600)
    chain = x509.load_pem_x509_certificates(certificate.chain)
    roots = x509.load_pem_x509_certificates(certificate.roots)
    assert len(chain) == 2
    chain[0].verify_directly_issued_by(chain[1])
    assert any(root.subject == chain[1].issuer for root in roots)
    for root in roots:
        root.verify_directly_issued_by(root)
    chain[1].verify_directly_issued_by(next(root for root in roots if root.subject == chain[1].issuer))
    # The intermediate may sign leaves, never another authority.
    assert chain[1].extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


async def test_every_key_is_new_and_fits_its_certificate(authority: CertificateAuthority) -> None:
    first, second = await authority.issue(JEDE, 3600), await authority.issue(JEDE, 3600)
    assert first.key != second.key
    for certificate in (first, second):
        key = load_pem_private_key(certificate.key, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"
        assert key.public_key() == leaf_of(certificate).public_key()
        assert certificate.key.startswith(b"-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("life_s", [60.0, 3600.0, 86400.0])
async def test_a_life_is_as_long_as_asked(authority: CertificateAuthority, life_s: float) -> None:
    asked = time.time()
    certificate = await authority.issue(JEDE, life_s)
    assert certificate.not_after == pytest.approx(asked + life_s, abs=5)
    # Clocks of two machines differ a little: it is valid from before it was made.
    assert asked - 60 <= certificate.not_before <= asked - 10
    leaf = leaf_of(certificate)
    assert leaf.not_valid_after_utc.timestamp() == certificate.not_after
    assert leaf.not_valid_before_utc.timestamp() == certificate.not_before


@pytest.mark.parametrize(
    "spiffe_id",
    [
        "spiffe://shop.idi/production/jede",
        "spiffe://other.idi/dev/jede",
        "spiffe://shop.idi.evil/dev/jede",
        "spiffe://shop.idi/dev/",
        "spiffe://shop.idi/dev/jede/admin",
        "spiffe://shop.idi/dev/../production/jede",
        "spiffe://shop.idi/dev/jede,spiffe://shop.idi/dev/cam",
        "spiffe://shop.idi/dev/*",
        "https://shop.idi/dev/jede",
        "jede",
        "",
    ],
)
async def test_any_other_identity_is_refused(authority: CertificateAuthority, spiffe_id: str) -> None:
    with pytest.raises(Refused):
        await authority.issue(spiffe_id, 3600)


@pytest.mark.parametrize("life_s", [0.0, -1.0, 86401.0, 10.0**9])
async def test_a_longer_life_than_declared_is_refused(authority: CertificateAuthority, life_s: float) -> None:
    with pytest.raises(Refused):
        await authority.issue(JEDE, life_s)


async def test_fourteen_at_once(authority: CertificateAuthority) -> None:
    names = [f"spiffe://shop.idi/dev/m{number}" for number in range(14)]
    certificates = await asyncio.gather(*(authority.issue(name, 3600) for name in names))
    assert [certificate.spiffe_id for certificate in certificates] == names
    assert len({leaf_of(certificate).serial_number for certificate in certificates}) == 14


async def test_the_key_is_in_no_repr(authority: CertificateAuthority) -> None:
    certificate = await authority.issue(JEDE, 3600)
    assert "PRIVATE" not in f"{certificate!r}{certificate}{authority!r}"


async def test_two_workloads_speak_mutual_tls(authority: CertificateAuthority, tmp_path: Path) -> None:
    """OpenSSL, a second implementation, takes both ends."""
    ends = [await authority.issue(JEDE, 3600), await authority.issue(CAM, 3600)]
    server, client = (
        context_of(end, purpose, tmp_path)
        for end, purpose in zip(ends, (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT), strict=True)
    )
    left, right = socket.socketpair()
    with left, right:

        def serve() -> object:
            with server.wrap_socket(left, server_side=True) as tls:
                tls.sendall(b"hello")
                return tls.getpeercert()

        def call() -> tuple[bytes, object]:
            with client.wrap_socket(right) as tls:
                return tls.recv(5), tls.getpeercert()

        of_client, (said, of_server) = await asyncio.gather(asyncio.to_thread(serve), asyncio.to_thread(call))
    assert said == b"hello"
    assert isinstance(of_server, dict)
    assert isinstance(of_client, dict)
    assert of_server["subjectAltName"] == (("URI", JEDE),)
    assert of_client["subjectAltName"] == (("URI", CAM),)


def context_of(certificate: Certificate, purpose: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=certificate.roots.decode())
    name = certificate.spiffe_id.rpartition("/")[2]
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(certificate.chain)
    key.write_bytes(certificate.key)
    context.load_cert_chain(chain, key)
    return context


# --- another root ---


class Turned:
    """An authority and how another root is made and the former forgotten behind its back."""

    def __init__(self, authority: CertificateAuthority, steps: Mapping[str, Callable[[], Awaitable[None]]]):
        self.authority = authority
        self.steps = steps


@pytest.fixture(params=["simulator", "openbao"])
async def turned(request: pytest.FixtureRequest) -> AsyncIterator[Turned]:
    if request.param == "simulator":
        simulated = SimulatedAuthority("shop.idi", "dev")

        async def turn() -> None:
            simulated.reroot()

        async def forget() -> None:
            simulated.forget()

        yield Turned(simulated, {"turn": turn, "forget": forget})
        return
    server = request.getfixturevalue("running")
    async with server.authority() as real, server.client() as client:
        rerooting = Rerooting(client, server.keys, openbao.SCOPE)

        async def add_and_switch() -> None:
            await rerooting.add()
            await rerooting.switch()

        yield Turned(real, {"turn": add_and_switch, "forget": rerooting.forget})


async def test_a_new_root_is_trusted_beside_the_former_and_then_alone(turned: Turned) -> None:
    authority = turned.authority
    before = await authority.issue(JEDE, 3600)
    await turned.steps["turn"]()
    both = x509.load_pem_x509_certificates(await authority.roots())
    assert len(both) == 2
    [former] = x509.load_pem_x509_certificates(before.roots)
    assert former in both
    after = await authority.issue(JEDE, 3600)
    [new] = [root for root in both if root != former]
    assert set(x509.load_pem_x509_certificates(after.roots)) == set(both)
    x509.load_pem_x509_certificates(after.chain)[1].verify_directly_issued_by(new)
    await turned.steps["forget"]()
    assert x509.load_pem_x509_certificates(await authority.roots()) == [new]
    assert x509.load_pem_x509_certificates((await authority.issue(JEDE, 3600)).roots) == [new]
