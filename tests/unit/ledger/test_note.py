"""Signed notes and checkpoints: other people's, ours, and what must be refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.ledger import checkpoint, note
from idi.ledger.checkpoint import Checkpoint
from idi.ledger.merkle import leaf_hash
from idi.ledger.note import Note, Signature, Signer, Verifier
from idi.ledger.problem import Problem

pytestmark = pytest.mark.requirement("S5")

# The example of Go's golang.org/x/mod/sumdb/note, made by its tools.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
SIGNER = Signer("example.com/log", bytes(range(32)))
OTHER = Signer("example.com/witness", bytes(range(1, 33)))


def verifier(text: str) -> Verifier:
    found = note.parse_verifier(text)
    assert isinstance(found, Verifier)
    return found


def test_a_note_made_by_go_verifies() -> None:
    opened = note.open_note(GO_NOTE, [verifier(GO_KEY)])
    assert isinstance(opened, Note)
    assert opened.text.endswith("what your problem is.\n")
    assert opened.encode() == GO_NOTE
    assert verifier(GO_KEY).encode() == GO_KEY


def test_we_sign_as_go_does() -> None:
    """Ed25519 is deterministic: the same key over the same text gives the published signature."""
    seed = bytes.fromhex("810a1402d5146c8d84f2443330f54080ebf98ee17d9c74f6252fc5d5c7283173")
    signer = Signer("PeterNeumann", seed)
    assert signer.verifier.encode() == GO_KEY
    text = GO_NOTE.decode().split("\n\n")[0] + "\n"
    assert signer.sign(text).encode() == GO_NOTE


def test_the_specification_s_note_parses() -> None:
    text = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n"
    line = (
        "— quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xM"
        "cXxj99ihAQwaqP3ZekRwNtIc=\n"
    )
    parsed = note.parse((text + "\n" + line).encode())
    assert isinstance(parsed, Note)
    assert parsed.text == text, "the text is split from the signatures at the last empty line"
    assert [one.name for one in parsed.signatures] == ["quasimodo.example/salvatore"]


def test_the_specification_s_checkpoint_parses() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    found = checkpoint.parse(text)
    assert isinstance(found, Checkpoint)
    assert (found.origin, found.size) == ("example.com/behind-the-sofa", 20852163)
    assert found.text() == text


def test_signatures_of_strangers_are_kept_and_ignored() -> None:
    ours, theirs = SIGNER.sign("text\n"), OTHER.sign("text\n")
    both = Note("text\n", ours.signatures + theirs.signatures).encode()
    opened = note.open_note(both, [SIGNER.verifier])
    assert isinstance(opened, Note)
    assert [one.name for one in opened.signatures] == ["example.com/log", "example.com/witness"]
    assert opened.encode() == both
    nobody = note.open_note(theirs.encode(), [SIGNER.verifier])
    assert isinstance(nobody, Problem)
    assert "not signed by example.com/log" in nobody.text


def test_a_false_signature_by_a_known_key_spoils_the_note() -> None:
    ours, theirs = SIGNER.sign("text\n"), OTHER.sign("text\n")
    false = Signature(SIGNER.verifier.name, SIGNER.verifier.key_id, theirs.signatures[0].signature)
    spoilt = Note("text\n", (*theirs.signatures, false)).encode()
    assert isinstance(note.open_note(spoilt, [SIGNER.verifier, OTHER.verifier]), Problem)
    assert isinstance(note.open_note(ours.encode(), [SIGNER.verifier, OTHER.verifier]), Note)


@given(st.data())
def test_any_changed_byte_is_found(data: st.DataObject) -> None:
    signed = checkpoint.sign(Checkpoint("example.com/log", 17, leaf_hash(b"x")), SIGNER)
    at = data.draw(st.integers(0, len(signed) - 1))
    changed = bytearray(signed)
    changed[at] ^= data.draw(st.integers(1, 255))
    assert isinstance(checkpoint.open_head(bytes(changed), [SIGNER.verifier], "example.com/log"), Problem)
    cut = signed[: data.draw(st.integers(0, len(signed) - 1))]
    assert isinstance(checkpoint.open_head(cut, [SIGNER.verifier], "example.com/log"), Problem)


@given(st.binary(max_size=300))
def test_garbage_is_a_problem_and_not_an_exception(data: bytes) -> None:
    assert isinstance(note.open_note(data, [SIGNER.verifier]), Problem)
    found = checkpoint.parse(data.decode("utf-8", "replace"))
    assert isinstance(found, Problem | Checkpoint)


@pytest.mark.parametrize(
    "text",
    [
        "o\n1\nAAAA\n",
        "o\n01\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "o\n-1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "o\n٣\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n",
        "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n",
        "o\n1\n",
        "o\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n",
    ],
)
def test_checkpoints_that_are_none(text: str) -> None:
    assert isinstance(checkpoint.parse(text), Problem)


def test_extension_lines_are_read_over_and_the_origin_counts() -> None:
    text = Checkpoint("example.com/log", 1, leaf_hash(b"x")).text() + "extension\n"
    signed = SIGNER.sign(text).encode()
    assert not isinstance(checkpoint.open_head(signed, [SIGNER.verifier], "example.com/log"), Problem)
    wrong = checkpoint.open_head(signed, [SIGNER.verifier], "example.com/other")
    assert isinstance(wrong, Problem)
    assert "example.com/log" in wrong.text


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\tb"])
def test_names_that_no_key_can_have(name: str) -> None:
    with pytest.raises(ValueError):
        Verifier(name, bytes(32))


@pytest.mark.parametrize("text", ["", "x", "x+1+2", GO_KEY[:-4], GO_KEY.replace("c74f20a3", "c74f20a4")])
def test_keys_that_are_none(text: str) -> None:
    assert isinstance(note.parse_verifier(text), Problem)


def test_bounds() -> None:
    signature = SIGNER.sign("text\n").signatures[0]
    assert isinstance(note.parse(Note("text\n", (signature,) * 16).encode()), Note)
    assert isinstance(note.parse(Note("text\n", (signature,) * 101).encode()), Problem)
    assert isinstance(note.parse(b"x" * (note.MAX_BYTES + 1)), Problem)
    with pytest.raises(ValueError):
        SIGNER.sign("no newline")
    with pytest.raises(ValueError):
        SIGNER.sign("a\x01b\n")
