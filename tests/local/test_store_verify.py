"""`verify_journal` over real files: any byte changed and any cut is found, or changes nothing that is said."""

import asyncio
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from idi.ledger.note import parse_verifier
from idi.ledger.problem import Problem
from idi.ledger.proof_file import verify as verify_proof
from idi.ledger.verify import Report
from idi.parts.audit.export import export_proof, export_tiles
from idi.parts.errors import Refused
from idi.parts.store.sqlite.check import open_log, prove, verify_journal
from tests.support.journals import Place, change, content, write_history
from tests.support.scale import scale

pytestmark = pytest.mark.requirement("S5")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "journal", tmp_path / "keys")


@pytest.fixture
async def closed(place: Place) -> Place:
    """A journal at rest: everything in the database, no write-ahead log."""
    async with place.open() as store:
        await write_history(store, 12)
    return place


@pytest.fixture
async def crashed(place: Place, tmp_path: Path) -> Place:
    """A journal with a part in the database and a part in its write-ahead log only."""
    async with place.open() as store:
        await write_history(store, 3)
    async with place.open() as store:
        await write_history(store, 3)
        return place.copy(tmp_path / "crashed")


def check(place: Place) -> Report:
    return verify_journal(place.directory, key_dir=place.keys)


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit, or now and then cut."""
    if rng.random() < 0.1:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


async def test_an_honest_journal_holds(closed: Place) -> None:
    report = check(closed)
    assert report.holds, report.findings
    assert report.size == 1 + 12 * 6 + 4
    assert report.remarks == ()


async def test_without_a_key_the_journal_s_own_word_is_taken_and_said(closed: Place) -> None:
    report = verify_journal(closed.directory)
    assert report.holds
    assert "taken from the journal itself" in report.remarks[0]


@pytest.mark.parametrize("name", ["journal.db", "head"])
async def test_any_spoilt_byte_at_rest_is_found_or_says_nothing(
    closed: Place, name: str, seeded: random.Random, tmp_path: Path
) -> None:
    honest, said = (closed.directory / name).read_bytes(), content(closed)
    spoilt, found, harmless = closed.copy(tmp_path / "spoilt"), 0, 0
    for _ in range(scale(150, 1500)):
        for left in spoilt.directory.iterdir():
            if left.name.startswith("journal.db-"):
                left.unlink()
        (spoilt.directory / name).write_bytes(spoil(honest, seeded))
        if check(spoilt).holds:
            assert content(spoilt) == said, "what was not found says the same"
            harmless += 1
        else:
            found += 1
    assert found > harmless or name == "journal.db", "most of the file says something"
    assert name != "head" or not harmless


async def test_any_spoilt_byte_of_the_write_ahead_log_is_found_or_says_nothing(
    crashed: Place, seeded: random.Random, tmp_path: Path
) -> None:
    honest, said = crashed.wal.read_bytes(), content(crashed)
    spoilt, found = crashed.copy(tmp_path / "spoilt"), 0
    databases = crashed.database.read_bytes()
    for _ in range(scale(150, 1500)):
        spoilt.directory.joinpath("journal.db-shm").unlink(missing_ok=True)
        spoilt.database.write_bytes(databases)
        spoilt.wal.write_bytes(spoil(honest, seeded))
        if check(spoilt).holds:
            assert content(spoilt) == said, "what was not found says the same"
        else:
            found += 1
    assert found > 100, "nearly every byte of it counts: its checksums run through it"


async def test_every_entry_and_every_hash_in_the_file_is_guarded(
    closed: Place, seeded: random.Random, tmp_path: Path
) -> None:
    """Not sampled over the file, where much is empty, but over the bytes that are entries and hashes."""
    honest = closed.database.read_bytes()
    connection = sqlite3.connect(closed.database)
    entries = connection.execute("SELECT idx, data FROM entry").fetchall()
    hashes = connection.execute("SELECT level, idx, hash FROM hash").fetchall()
    connection.close()
    spoilt = closed.copy(tmp_path / "spoilt")
    some = seeded.sample(entries, scale(12, len(entries)))
    for index, data in some:
        start = honest.index(data)
        at = start + seeded.randrange(len(data))
        spoilt.database.write_bytes(
            honest[:at] + bytes([honest[at] ^ 1 << seeded.randrange(8)]) + honest[at + 1 :]
        )
        texts = [finding.text for finding in check(spoilt).findings]
        assert f"entry {index}: its bytes do not match its leaf hash" in texts
    for level, index, data in seeded.sample(hashes, scale(12, len(hashes))):
        start = honest.index(data)
        at = start + seeded.randrange(len(data))
        spoilt.database.write_bytes(
            honest[:at] + bytes([honest[at] ^ 1 << seeded.randrange(8)]) + honest[at + 1 :]
        )
        texts = [finding.text for finding in check(spoilt).findings]
        if level == 0:
            assert f"entry {index}: its bytes do not match its leaf hash" in texts
        else:
            first, last = index << level, (index + 1 << level) - 1
            assert f"the stored hash over entries {first} to {last} is not the hash of them" in texts


async def test_garbage_of_every_kind_is_a_finding_and_no_exception(
    place: Place, seeded: random.Random
) -> None:
    assert not check(place).holds, "no folder"
    place.directory.mkdir(parents=True)
    assert not check(place).holds, "no files"
    for data in (
        b"",
        b"x",
        bytes(5000),
        b"SQLite format 3\0" + seeded.randbytes(9000),
        seeded.randbytes(9000),
    ):
        for wal in (b"", seeded.randbytes(9000)):
            place.database.write_bytes(data)
            place.wal.write_bytes(wal)
            place.head.write_bytes(data)
            report = check(place)
            assert not report.holds
            assert all("Traceback" not in finding.text for finding in report.findings)
    place.database.unlink()
    place.database.mkdir()
    assert not check(place).holds


async def test_a_key_from_outside_decides(closed: Place, tmp_path: Path) -> None:
    async with Place(tmp_path / "other", tmp_path / "other keys").open() as store:
        stranger = store.state.verifier
    texts = [finding.text for finding in verify_journal(closed.directory, verifier=stranger).findings]
    assert any("names the key" in text for text in texts)
    assert any("cannot be trusted" in text for text in texts)
    (finding,) = verify_journal(closed.directory, verifier="nonsense").findings
    assert "the key to verify with" in finding.text
    (finding,) = verify_journal(closed.directory, key_dir=tmp_path / "nowhere").findings
    assert "is missing" in finding.text


async def test_a_whole_journal_put_back_from_yesterday_is_found_by_a_head_that_was_kept(
    place: Place, tmp_path: Path
) -> None:
    async with place.open() as store:
        await change(store)
    yesterday = place.copy(tmp_path / "yesterday")
    async with place.open() as store:
        await change(store)
        kept = await store.head()
    assert verify_journal(place.directory, key_dir=place.keys, kept_heads=[kept]).holds
    assert check(yesterday).holds, "by itself it is a sound journal"
    (finding,) = verify_journal(yesterday.directory, key_dir=place.keys, kept_heads=[kept]).findings
    assert finding.text == "entries 7 to 12 are lost: kept head 0 names 13 entries, there are 7"


async def test_verifying_while_it_is_written(place: Place) -> None:
    async with place.open() as store:
        writing = True

        async def write() -> None:
            number = 0
            while writing:
                await change(store, number)
                number += 1

        async with asyncio.TaskGroup() as group:
            writers = [group.create_task(write()) for _ in range(3)]
            checked = 0
            while checked < scale(15, 200) or store.state.size <= 20:  # a slow disk takes few in that time
                report = await asyncio.to_thread(check, place)
                assert report.holds, report.findings
                checked += 1
            writing = False
        assert all(writer.done() for writer in writers)
        assert (await asyncio.to_thread(check, place)).size == store.state.size


async def test_a_reader_leaves_the_files_as_they_are(crashed: Place) -> None:
    files = crashed.files()
    assert check(crashed).holds
    with open_log(crashed.directory) as log:
        prove(log, 3)
    assert crashed.files() == files


async def test_one_entry_goes_out_with_its_proof(closed: Place, tmp_path: Path) -> None:
    async with closed.open() as store:
        key = parse_verifier(store.state.verifier)
        assert not isinstance(key, Problem)
    with open_log(closed.directory) as log:
        for index in (0, 17, log.size - 1):
            proof = prove(log, index).encode()
            entry_path, proof_path = export_proof(
                tmp_path / "out" / f"entry-{index}", log.read_entry(index), proof
            )
            assert not isinstance(
                verify_proof(proof_path.read_bytes(), entry_path.read_bytes(), key), Problem
            )
            wrong = verify_proof(proof, log.read_entry(5), key)
            assert isinstance(wrong, Problem)
        with pytest.raises(Refused, match=f"There is no entry {log.size}"):
            prove(log, log.size)


async def test_a_log_goes_out_again_with_what_is_new(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    async with place.open() as store:
        await change(store)
        with open_log(place.directory) as log:
            first = export_tiles(folder, log.head, log.size, log.read_node, log.read_entry)
            again = export_tiles(folder, log.head, log.size, log.read_node, log.read_entry)
        await change(store)
        with open_log(place.directory) as log:
            export_tiles(folder, log.head, log.size, log.read_node, log.read_entry)
            assert (folder / "checkpoint").read_bytes() == log.head
    assert (first.entries, first.files, again.files) == (7, 3, 1)
    assert (folder / "tile/0/000.p/7").exists(), "what an older checkpoint promised stays"
    assert (folder / "tile/entries/000.p/13").exists()


async def test_a_log_that_cannot_be_read_is_refused(closed: Place) -> None:
    closed.head.write_bytes(b"x")
    with pytest.raises(Refused, match="idi audit verify"):
        with open_log(closed.directory):
            pass
    shutil.rmtree(closed.directory)
    with pytest.raises(Refused):
        with open_log(closed.directory):
            pass


async def test_a_byte_changed_under_a_running_writer_is_found(place: Place) -> None:
    """While a writer is there, SQLite reads its write-ahead log without checking its sums again."""
    async with place.open() as store:
        await write_history(store, 2)
        last = await store.entries(newest=True, limit=1)
        wal = place.wal.read_bytes()
        at = wal.rindex(b'"index":%d' % last[0].index)
        place.wal.write_bytes(wal[:at] + bytes([wal[at] ^ 1]) + wal[at + 1 :])
        texts = [finding.text for finding in check(place).findings]
        assert f"entry {last[0].index}: its bytes do not match its leaf hash" in texts
    with pytest.raises(Refused, match=f"entry {last[0].index}: its bytes do not match"):
        async with place.open():
            pass
