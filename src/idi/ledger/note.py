"""C2SP signed-note: a text, and who signed it (c2sp.org/signed-note).

A note is a text that ends in a newline, a blank line, and one line for each signature:
`— <key name> <base64(key id || signature)>`. The key id is the first four bytes of
SHA-256(name || 0x0A || type || public key). Signatures by keys that the reader does not know are kept and
ignored (a witness or EAT may have added theirs); one by a known key that does not verify makes the whole note
unacceptable; without one good signature by a known key the text must not be looked at.

Keys are written as Go's `sumdb/note` writes them (`name+id+base64`), so that its tools take them as they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from idi.ledger import strict64
from idi.ledger.problem import Problem

ED25519 = 1
MAX_BYTES = 1 << 16
MAX_SIGNATURES = 100
_DASH = "— "


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line. `key_id` are its four bytes as hexadecimal digits."""

    name: str
    key_id: str
    signature: bytes

    def line(self) -> str:
        return f"{_DASH}{self.name} {strict64.encode(bytes.fromhex(self.key_id) + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text with all of its signatures, those by unknown keys too."""

    text: str
    signatures: tuple[Signature, ...]

    def encode(self) -> bytes:
        return (self.text + "\n" + "".join(one.line() for one in self.signatures)).encode()


@dataclass(frozen=True, slots=True)
class Verifier:
    """An Ed25519 public key under a name."""

    name: str
    public_key: bytes
    key_id: str = field(init=False)

    def __post_init__(self) -> None:
        if not _good_name(self.name) or len(self.public_key) != 32:
            raise ValueError(f"{self.name!r} cannot name a key: no spaces, no +, not empty")
        named = self.name.encode() + b"\n" + bytes([ED25519]) + self.public_key
        object.__setattr__(self, "key_id", sha256(named).hexdigest()[:8])

    def encode(self) -> str:
        """`name+id+base64`, what Go's note.NewVerifier reads."""
        return f"{self.name}+{self.key_id}+{strict64.encode(bytes([ED25519]) + self.public_key)}"

    def accepts(self, text: str, signature: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text.encode())
        except (InvalidSignature, ValueError):
            return False
        return True


class Signer:
    """A private key under a name. It never shows itself; `seed` are the 32 secret bytes."""

    def __init__(self, name: str, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = Verifier(name, self._key.public_key().public_bytes_raw())

    def sign(self, text: str) -> Note:
        if not text.endswith("\n") or not _good_text(text):
            raise ValueError("a note's text ends in a newline and has no other control characters")
        made = self._key.sign(text.encode())
        return Note(text, (Signature(self.verifier.name, self.verifier.key_id, made),))


def parse_verifier(text: str) -> Verifier | Problem:
    """Read what `Verifier.encode` wrote."""
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    key = strict64.decode(encoded)
    if key is None or len(key) != 33 or key[0] != ED25519 or not _good_name(name):
        return Problem("it is not an Ed25519 key written as name+id+base64")
    verifier = Verifier(name, key[1:])
    if verifier.key_id != key_id:
        return Problem(f"its key id is {verifier.key_id}, not {key_id}")
    return verifier


def parse(data: bytes) -> Note | Problem:
    """Split a note; verifies nothing."""
    if len(data) > MAX_BYTES:
        return Problem(f"it is {len(data)} bytes long, at most {MAX_BYTES} are read")
    try:
        whole = data.decode()
    except UnicodeDecodeError as error:
        return Problem(f"it is not UTF-8 at byte {error.start}")
    if not _good_text(whole):
        return Problem("it holds a control character")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank or not lines:
        return Problem("it has no signature after an empty line")
    if not lines.endswith("\n"):
        return Problem("its last line is cut off")
    signatures = []
    for line in lines[:-1].split("\n"):
        name, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = strict64.decode(encoded)
        if not line.startswith(_DASH) or not _good_name(name) or raw is None or len(raw) < 5:
            return Problem("a signature line does not have the form '— name base64'")
        signatures.append(Signature(name, raw[:4].hex(), raw[4:]))
    if len(signatures) > MAX_SIGNATURES:
        return Problem(f"it has {len(signatures)} signatures, at most {MAX_SIGNATURES} are read")
    return Note(text + "\n", tuple(signatures))


def open_note(data: bytes, known: Iterable[Verifier]) -> Note | Problem:
    """Parse and verify: at least one signature by a known key, and none by a known key that is false."""
    note = parse(data)
    if isinstance(note, Problem):
        return note
    keys = {(one.name, one.key_id): one for one in known}
    verified = False
    for signature in note.signatures:
        key = keys.get((signature.name, signature.key_id))
        if key is None:
            continue
        if not key.accepts(note.text, signature.signature):
            return Problem(f"the signature by {key.name} ({key.key_id}) does not verify")
        verified = True
    if not verified:
        names = ", ".join(f"{one.name} ({one.key_id})" for one in keys.values()) or "nobody"
        signed = ", ".join(f"{one.name} ({one.key_id})" for one in note.signatures)
        return Problem(f"it is not signed by {names}, but by {signed}")
    return note


def _good_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name) and _good_text(name)


def _good_text(text: str) -> bool:
    return not any(c < " " and c != "\n" for c in text)
