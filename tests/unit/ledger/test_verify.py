"""The verifier over rows: an honest log holds, and whatever is changed in it is named."""

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from idi.ledger import checkpoint, proof_file
from idi.ledger.checkpoint import Checkpoint, Head
from idi.ledger.merkle import leaf_hash
from idi.ledger.note import Signer
from idi.ledger.problem import Problem
from idi.ledger.proof_file import InclusionProof
from idi.ledger.proofs import prove_inclusion
from idi.ledger.verify import Report, Stored, verify
from idi.parts.store import draft
from idi.parts.store.draft import Compose, Tip
from idi.parts.store.interface import Actor, Step
from tests.support.scale import scale

pytestmark = pytest.mark.requirement("S5")

NAME = "example.com/log"
SIGNER = Signer(NAME, bytes(32))
ADA = Actor("peer", "ada", 1000)


@dataclass
class Log:
    """A log's rows, that a test can spoil."""

    tip: Tip = field(default_factory=Tip)
    rows: list[Any] = field(default_factory=list)
    nodes: dict[tuple[int, int], Any] = field(default_factory=dict)
    open: dict[Any, Any] = field(default_factory=dict)
    outbox: list[Any] = field(default_factory=list)
    documents: dict[str, Any] = field(default_factory=dict)
    previous: int = 0
    heads: list[bytes] = field(default_factory=list)

    def write(self, compose: Compose[Any]) -> Any:
        composed = compose(self.tip, 1_700_000_000.0)
        writes = composed.writes
        self.previous, self.tip = self.tip.size, composed.tip
        for row in writes.rows:
            self.rows.append((row.index, row.data))
            self.outbox.append(row.index)
            if row.change is not None:
                self.open[row.index] = row.change
        self.nodes |= {(node.level, node.position): node.hash for node in writes.nodes}
        self.open = {index: change for index, change in self.open.items() if change not in writes.closed}
        for name, (data, index) in writes.documents.items():
            self.documents.pop(name, None)
            if data is not None:
                self.documents[name] = (data, index)
        signed = Checkpoint(NAME, self.tip.size, self.tip.frontier.root())
        self.heads.append(checkpoint.sign(signed, SIGNER))
        return composed.value

    def check(self, **other: Any) -> Report:
        given: dict[str, Any] = {
            "origin": NAME,
            "verifier": SIGNER.verifier.encode(),
            "previous": self.previous,
            "entries": list(self.rows),
            "stored_hash": lambda level, position: self.nodes.get((level, position)),
            "hash_count": len(self.nodes),
            "open_entries": list(self.open.items()),
            "outbox": [(index,) for index in self.outbox],
            "documents": [(name, data, index) for name, (data, index) in self.documents.items()],
            "head": self.heads[-1] if self.heads else None,
        }
        kept = other.pop("kept_heads", ())
        trusted = other.pop("trusted", SIGNER.verifier)
        return verify(Stored(**{**given, **other}), trusted, kept)


@pytest.fixture
def log() -> Log:
    """30 entries: changes that ended well and badly, one that is open, documents written and taken away."""
    made = Log()
    created = {"origin": NAME, "verifier": SIGNER.verifier.encode()}
    made.write(draft.note(draft.PLATFORM, "journal.create", "", created, {}))
    for number in range(4):
        change = made.write(
            draft.begin(ADA, "up", "", {}, {"declaration": b"v%d" % number, "gone": b"x"}, False)
        )
        steps = made.write(draft.intend(change, [Step("start", "jede"), Step("start", "cam")], {}))
        made.write(draft.outcome(steps[0], True, {"number": number}, {}))
        if number < 3:
            made.write(draft.outcome(steps[1], number == 0, {}, {}))
            made.write(draft.finish(change, number == 0, "", {"gone": None}))
    while len(made.rows) < 30:
        made.write(draft.note(draft.PLATFORM, "drift", "", {}, {}))
    return made


def texts(report: Report) -> list[str]:
    return [finding.text for finding in report.findings]


def test_an_honest_log_holds(log: Log) -> None:
    report = log.check(kept_heads=log.heads)
    assert report.holds, report.findings
    assert report.size == 30
    assert report.signed is not None
    assert report.signed.size == 30
    assert report.remarks == ()


def test_any_flipped_byte_of_an_entry_is_named(log: Log, seeded: random.Random) -> None:
    for index in range(len(log.rows)):
        honest = log.rows[index]
        data = bytearray(honest[1])
        for at in seeded.sample(range(len(data)), scale(4, len(data))):
            data[at] ^= 1 << seeded.randrange(8)
            log.rows[index] = (index, bytes(data))
            report = log.check()
            assert f"entry {index}: its bytes do not match its leaf hash" in texts(report)
            assert "the signed head confirms the stored hashes: bytes of entries were changed" in texts(
                report
            )
            assert {finding.index for finding in report.findings} == {index, None}, "nothing else is blamed"
            data = bytearray(honest[1])
        log.rows[index] = honest
    assert log.check().holds


def test_any_flipped_byte_of_a_stored_hash_is_named_and_is_one_finding(
    log: Log, seeded: random.Random
) -> None:
    for place, honest in list(log.nodes.items()):
        at = seeded.randrange(32)
        log.nodes[place] = honest[:at] + bytes([honest[at] ^ 1 << seeded.randrange(8)]) + honest[at + 1 :]
        report = log.check()
        level, position = place
        if level == 0:
            assert texts(report) == [
                f"entry {position}: its bytes do not match its leaf hash",
                "the signed head confirms the entries: stored hashes were changed",
            ]
        else:
            first, last = position << level, (position + 1 << level) - 1
            assert texts(report) == [
                f"the stored hash over entries {first} to {last} is not the hash of them"
            ]
        log.nodes[place] = honest


def test_a_changed_entry_with_a_forged_tree_is_found_by_the_signed_root(log: Log) -> None:
    forged = Log()
    for index, data in log.rows:
        del index
        changed = data.replace(b'"ada"', b'"eve"')
        frontier, nodes = forged.tip.frontier.append(leaf_hash(changed))
        forged.tip = Tip(frontier, {})
        forged.rows.append((len(forged.rows), changed))
        forged.nodes |= {(node.level, node.position): node.hash for node in nodes}
    log.rows, log.nodes = forged.rows, forged.nodes
    assert texts(log.check()) == ["the first 30 entries do not have the root that the signed head names"]


@pytest.mark.parametrize("cut", [1, 2, 29])
def test_entries_lost_from_the_end_are_named(log: Log, cut: int) -> None:
    size = 30 - cut
    honest = Log()
    honest.rows = log.rows[:size]
    honest.nodes = {place: one for place, one in log.nodes.items() if (place[1] + 1) << place[0] <= size}
    report = honest.check(head=log.heads[-1], previous=size - 1, outbox=[(at,) for at in range(size)])
    lost = "entry 29 is lost" if cut == 1 else f"entries {size} to 29 are lost"
    assert f"{lost}: the signed head names 30 entries, there are {size}" in texts(report)


def test_a_missing_entry_in_the_middle_is_named(log: Log) -> None:
    del log.rows[12]
    found = texts(log.check())
    assert "entry 13 stands where entry 12 belongs: entries are missing" in found


def test_a_head_that_is_older_than_one_transaction_is_named(log: Log) -> None:
    assert log.check(head=log.heads[-2]).holds, "one transaction may be on its way"
    assert log.check(head=log.heads[-2]).remarks == ("1 entries of the last transaction are not signed yet",)
    old = log.check(head=log.heads[-4])
    assert "3 entries follow the 27 that the signed head names" in texts(old)[0]
    assert log.check(head=log.heads[-4], moving=True).holds


def test_heads_that_cannot_be_trusted(log: Log) -> None:
    assert texts(log.check(head=None)) == ["the signed head is missing"]
    assert "cannot be trusted" in texts(log.check(head=b"garbage"))[0]
    eve = Signer(NAME, bytes([1] * 32))
    signed = checkpoint.sign(Checkpoint(NAME, 30, log.tip.frontier.root()), eve)
    assert "not signed by" in texts(log.check(head=signed))[0]
    everything = log.check(head=signed, verifier=eve.verifier.encode())
    assert any("names the key" in text for text in texts(everything)), "a new key does not whitewash it"
    assert log.check(trusted=None).remarks == (
        "the key was taken from the journal itself, not from outside of it",
    )


def test_a_head_that_was_put_by_must_still_hold(log: Log) -> None:
    other = checkpoint.sign(Checkpoint(NAME, 7, bytes(32)), SIGNER)
    report = log.check(kept_heads=[log.heads[3], other])
    assert texts(report) == ["the first 7 entries do not have the root that kept head 1 names"]


def test_what_is_stored_beside_the_entries_is_compared(log: Log) -> None:
    assert (
        "the document declaration is not what"
        in texts(log.check(documents=[("declaration", b"other", log.documents["declaration"][1])]))[0]
    )
    assert "the document declaration is not what" in texts(log.check(documents=[]))[0]
    extra = [*((name, *kept) for name, kept in log.documents.items()), ("new", b"x", 3)]
    assert "the document new is not what" in texts(log.check(documents=extra))[0]
    assert "outbox" in texts(log.check(outbox=[(3,), (5,)]))[0]
    assert log.check(outbox=[]).holds, "all acknowledged"
    assert log.check(outbox=[(at,) for at in range(7, 30)]).holds
    assert "is not listed so" in texts(log.check(open_entries=[]))[0]
    assert "which is not open" in texts(log.check(open_entries=[*log.open.items(), (29, 2)]))[0]
    assert texts(log.check(hash_count=3))[0].startswith("there are 3 stored hashes")
    assert texts(log.check(faults=["page 7 is broken"])) == ["the database: page 7 is broken"]
    assert "cannot be read" in texts(log.check(verifier="nonsense"))[0]
    assert any("calls itself" in text for text in texts(log.check(origin="other")))


@pytest.mark.parametrize("junk", [None, "x", 1.5, b"", -1, 10**9, True])
def test_rows_of_any_form_are_findings(log: Log, junk: Any) -> None:
    for rows in (
        {"entries": [*log.rows[:5], (junk, junk), *log.rows[6:]]},
        {"entries": [*log.rows[:5], (5, junk), *log.rows[6:]]},
        {"entries": [*log.rows[:5], Problem("the disk is broken")]},
        {"entries": [*log.rows[:5], (), *log.rows[6:]]},
        {"open_entries": [(junk, junk)]},
        {"outbox": [(junk,)]},
        {"documents": [(junk, junk, junk)]},
        {"head": junk if isinstance(junk, bytes) else b"x"},
        {"stored_hash": lambda level, position: junk},
    ):
        assert not log.check(**rows).holds, rows


def test_one_entry_proves_itself_to_a_stranger(log: Log) -> None:
    def read(level: int, position: int) -> bytes:
        found: bytes = log.nodes[level, position]
        return found

    for index, data in log.rows:
        proof = InclusionProof(index, prove_inclusion(index, 30, read), log.heads[-1]).encode()
        assert isinstance(proof_file.verify(proof, data, SIGNER.verifier), Head)
        assert isinstance(proof_file.verify(proof, data + b" ", SIGNER.verifier), Problem)
        assert isinstance(proof_file.verify(proof, data, Signer("x", bytes(32)).verifier), Problem)


def test_a_proof_that_was_changed_proves_nothing(log: Log, seeded: random.Random) -> None:
    path = prove_inclusion(17, 30, lambda level, position: log.nodes[level, position])
    proof = InclusionProof(17, path, log.heads[-1]).encode()
    for at in range(len(proof)):
        changed = bytearray(proof)
        changed[at] ^= 1 << seeded.randrange(8)
        assert isinstance(proof_file.verify(bytes(changed), log.rows[17][1], SIGNER.verifier), Problem)
        assert isinstance(proof_file.verify(proof[:at], log.rows[17][1], SIGNER.verifier), Problem)
    with_extra = proof.replace(b"\nindex", b"\nextra eA==\nindex", 1)
    assert isinstance(proof_file.verify(with_extra, log.rows[17][1], SIGNER.verifier), Head)
