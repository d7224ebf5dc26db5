"""What a token says, who gets one, and what is kept of a secret."""

import json
import stat
from pathlib import Path
from types import MappingProxyType

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws, jwt
from joserfc.jwk import KeySet
from joserfc.util import urlsafe_b64decode

from idi.declaration.types import Client
from idi.parts.errors import PartError, Refused
from idi.parts.tokens.embedded.clients import PREFIX, ClientBook
from idi.parts.tokens.embedded.issuer import Granted, Issuer, OAuthError, requested_scopes
from idi.parts.tokens.embedded.keys import KeyFile, key_set, new_key
from idi.parts.tokens.embedded.limits import Buckets, Rate
from idi.parts.tokens.embedded.ring import Ring

pytestmark = pytest.mark.requirement("S3")

NOW = 1_800_000_000.25
PILOT = Client("pilot", ("jede.read", "cam.write"))
CLIENTS = MappingProxyType({"pilot": PILOT, "other": Client("other", ())})
URL = "http://127.0.0.1:8080"


class Bench:
    def __init__(self, folder: Path) -> None:
        self.monotonic = 0.0
        self.book = ClientBook(folder)
        self.issuer = Issuer(
            URL + "/",
            "shop",
            Ring((new_key(0),)),
            self.book,
            token_life_s=300.0,
            clock=lambda: NOW,
            monotonic=lambda: self.monotonic,
            new_id=iter(str(number) for number in range(10_000)).__next__,
        )
        self.issuer.declare(CLIENTS, 300.0)

    def claims(self, granted: Granted) -> dict[str, object]:
        keys = KeySet.import_key_set(json.loads(key_set(self.issuer.ring.keys)))
        return jwt.decode(granted.access_token, keys, algorithms=["ES256"]).claims


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# --- tokens ---


def test_a_clients_token(bench: Bench) -> None:
    granted = bench.issuer.grant("pilot", bench.book.new_secret("pilot"), "")
    assert bench.claims(granted) == {
        "iss": URL,
        "sub": "pilot",
        "client_id": "pilot",
        "aud": "shop",
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "jti": "0",
        "scope": "jede.read cam.write",
    }
    assert granted.expires_in == 300
    header = jws.extract_compact(granted.access_token.encode()).headers()
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": bench.issuer.ring.keys[0].kid}
    assert granted.access_token not in repr(granted)


def test_the_signature_is_one_to_another_library(bench: Bench) -> None:
    granted = bench.issuer.grant("pilot", bench.book.new_secret("pilot"), "")
    head, body, signature = granted.access_token.split(".")
    (published,) = json.loads(key_set(bench.issuer.ring.keys))["keys"]
    raw, x, y = (urlsafe_b64decode(part.encode()) for part in (signature, published["x"], published["y"]))
    public = ec.EllipticCurvePublicNumbers(int.from_bytes(x), int.from_bytes(y), ec.SECP256R1()).public_key()
    der = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
    public.verify(der, f"{head}.{body}".encode(), ec.ECDSA(hashes.SHA256()))


def test_the_key_set_is_public_and_the_same_bytes_each_time() -> None:
    keys = [new_key(0), new_key(1)]
    text = key_set(keys)
    assert text == key_set(reversed(keys))
    for member in json.loads(text)["keys"]:
        assert sorted(member) == ["alg", "crv", "kid", "kty", "use", "x", "y"]


def test_an_operators_token(bench: Bench) -> None:
    granted = bench.issuer.mint("operator:ann", ["b", "a", "b"], 60)
    claims = bench.claims(granted)
    assert (claims["sub"], claims["scope"], claims["client_id"]) == ("operator:ann", "b a", "idi")
    assert granted.expires_in == 60


@pytest.mark.parametrize(
    ("subject", "scopes", "life_s"),
    [
        ("pilot", ["a"], 60.0),
        ("ann", ["a"], 60.0),
        ("operator:ann", ["a b"], 60.0),
        ("operator:ann", ['a"'], 60.0),
        ("operator:ann", [""], 60.0),
        ("operator:ann", ["a"], 0.0),
        ("operator:ann", ["a"], 3601.0),
    ],
)
def test_an_operators_token_has_bounds(bench: Bench, subject: str, scopes: list[str], life_s: float) -> None:
    with pytest.raises(Refused):
        bench.issuer.mint(subject, scopes, life_s)


def test_an_operator_may_have_a_token_in_a_clients_name(bench: Bench) -> None:
    granted = bench.issuer.mint_as("pilot", ["jede.read"], 60)
    claims = bench.claims(granted)
    assert (claims["sub"], claims["scope"], claims["client_id"]) == ("pilot", "jede.read", "pilot")
    for client, scopes, life_s in (
        ("nobody", ["jede.read"], 60),
        ("pilot", ["jede.admin"], 60),
        ("pilot", [], 0.5),
    ):
        with pytest.raises(Refused):
            bench.issuer.mint_as(client, scopes, life_s)


# --- scopes ---

SCOPE = st.from_regex(r"[a-z]{1,3}(\.[a-z]{1,3})?", fullmatch=True)


@given(st.lists(SCOPE, unique=True, max_size=8), st.lists(SCOPE, max_size=8))
def test_nobody_gets_more_than_is_declared(allowed: list[str], asked: list[str]) -> None:
    text = " ".join(asked)
    if set(asked) <= set(allowed):
        got = requested_scopes(text, allowed)
        assert set(got) == (set(asked) or set(allowed))
        assert list(got) == [scope for scope in allowed if scope in got]
    else:
        with pytest.raises(OAuthError) as caught:
            requested_scopes(text, allowed)
        assert caught.value.code == "invalid_scope"


@given(st.text(max_size=60), st.lists(SCOPE, unique=True, max_size=5))
def test_any_text_gives_declared_scopes_or_the_right_error(text: str, allowed: list[str]) -> None:
    code = ""
    got: tuple[str, ...] = ()
    try:
        got = requested_scopes(text, allowed)
    except OAuthError as error:
        code = error.code
    assert code in ("", "invalid_scope")
    assert set(got) <= set(allowed)


def test_a_scope_text_is_bounded() -> None:
    with pytest.raises(OAuthError):
        requested_scopes("a " * 3000, ["a"])


# --- clients ---


def test_a_secret_is_shown_once_and_kept_hashed(bench: Bench, tmp_path: Path) -> None:
    secret = bench.book.new_secret("pilot")
    assert secret.startswith(PREFIX)
    assert len(secret) >= len(PREFIX) + 43
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret.removeprefix(PREFIX) not in path.read_text()
    assert secret not in f"{bench.book!r}{bench.issuer!r}"
    assert ClientBook(tmp_path).authenticate("pilot", secret) is None  # nothing declared there
    again = ClientBook(tmp_path)
    again.declare(CLIENTS)
    assert again.authenticate("pilot", secret) == PILOT


def test_a_new_secret_ends_the_former(bench: Bench) -> None:
    first, second = bench.book.new_secret("pilot"), bench.book.new_secret("pilot")
    assert first != second
    assert bench.book.authenticate("pilot", first) is None
    assert bench.book.authenticate("pilot", second) is PILOT


@pytest.mark.parametrize(
    ("name", "secret"),
    [("pilot", ""), ("pilot", "wrong"), ("other", ""), ("nobody", ""), ("", ""), ("pilot", "\udcff")],
)
def test_anything_else_is_nobody(bench: Bench, name: str, secret: str) -> None:
    bench.book.new_secret("pilot")
    assert bench.book.authenticate(name, secret) is None


def test_a_client_that_is_not_declared_any_more_loses_its_secret(bench: Bench, tmp_path: Path) -> None:
    secret = bench.book.new_secret("pilot")
    bench.issuer.declare({}, 300)
    assert bench.book.authenticate("pilot", secret) is None
    assert "pilot" not in (tmp_path / "issuer-clients.json").read_text()
    bench.issuer.declare(CLIENTS, 300)
    assert bench.book.authenticate("pilot", secret) is None
    assert not bench.book.has_secret("pilot")
    with pytest.raises(Refused, match="other, pilot"):
        bench.book.new_secret("nobody")


# --- limits ---


def test_failures_in_a_clients_name_never_lock_it_out(bench: Bench) -> None:
    secret = bench.book.new_secret("pilot")
    seen = []
    for _ in range(40):
        with pytest.raises(OAuthError) as caught:
            bench.issuer.grant("pilot", "wrong", "")
        seen.append((caught.value.status, caught.value.code))
    assert seen[0] == (401, "invalid_client")
    assert seen[-1] == (429, "invalid_client")
    assert caught.value.retry_s > 0
    bench.issuer.grant("pilot", secret, "")
    bench.monotonic += caught.value.retry_s
    with pytest.raises(OAuthError) as caught:
        bench.issuer.grant("pilot", "wrong", "")
    assert caught.value.status == 401


def test_names_that_are_not_declared_share_one_bound(bench: Bench) -> None:
    statuses = set()
    for number in range(50):
        with pytest.raises(OAuthError) as caught:
            bench.issuer.grant(f"guess-{number}", "x", "")
        statuses.add(caught.value.status)
    assert statuses == {401, 429}
    with pytest.raises(OAuthError) as caught:
        bench.issuer.grant("pilot", "x", "")
    assert caught.value.status == 401


def test_a_client_that_asks_for_a_token_each_time_is_told_to_keep_one(bench: Bench) -> None:
    secret = bench.book.new_secret("pilot")
    for _ in range(100):
        bench.issuer.grant("pilot", secret, "")
    with pytest.raises(OAuthError) as caught:
        bench.issuer.grant("pilot", secret, "")
    assert caught.value.status == 429
    bench.monotonic += caught.value.retry_s
    bench.issuer.grant("pilot", secret, "")


@given(st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(pauses: list[float]) -> None:
    buckets = Buckets(Rate(per_s=2, burst=5))
    now, taken = 0.0, 0
    for pause in pauses:
        now += pause
        wait = buckets.take("x", now)
        taken += not wait
        assert taken <= 5 + 2 * now + 1e-6
        if wait:
            assert 0 < wait <= 0.5


# --- keys on disk ---


def test_keys_are_kept_private_and_come_back(tmp_path: Path) -> None:
    ring = Ring((new_key(0), new_key(5)))
    file = KeyFile(tmp_path)
    assert file.load() is None
    file.save(ring)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert KeyFile(tmp_path).load() == ring


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"keys": []}', '{"keys": [{"kid": "a"}]}', "swapped"])
def test_a_damaged_key_file_is_named_and_not_replaced(tmp_path: Path, content: str) -> None:
    file = KeyFile(tmp_path)
    if content == "swapped":
        file.save(Ring((new_key(0),)))
        kept = json.loads(file.path.read_text())
        kept["keys"][0]["kid"] = new_key(0).kid
        content = json.dumps(kept)
    file.path.write_text(content)
    with pytest.raises(PartError, match="issuer-keys") as caught:
        file.load()
    assert not caught.value.retryable
    assert file.path.read_text() == content
