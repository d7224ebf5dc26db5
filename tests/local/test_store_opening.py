"""Opening a journal on disk: what is made, what is healed, and what is refused with which words."""

import asyncio
import errno
import os
import sqlite3
import stat
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from idi.parts.errors import PartError, Refused
from idi.parts.store.files import write_whole
from idi.parts.store.interface import Filter, Step
from idi.parts.store.sqlite import schema
from idi.parts.store.sqlite.check import list_entries, verify_journal
from idi.parts.store.sqlite.writer import WAL_BYTES
from tests.support.journals import ADA, Place, change, write_history

pytestmark = pytest.mark.requirement("S5")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "journal", tmp_path / "keys")


@pytest.fixture
async def crashed(place: Place, tmp_path: Path) -> AsyncIterator[Place]:
    """What a crash leaves of a journal with a history: most of it only in the write-ahead log."""
    async with place.open() as store:
        await write_history(store, 3)
        yield place.copy(tmp_path / "crashed")


async def refusal(place: Place) -> Refused:
    with pytest.raises(Refused) as caught:
        async with place.open():
            pass
    return caught.value


async def test_what_is_made_belongs_to_its_owner_alone(place: Place) -> None:
    async with place.open():
        for path in [*place.directory.iterdir(), *place.keys.iterdir(), place.directory, place.keys]:
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
        assert stat.S_IMODE((place.keys / "log-key").stat().st_mode) == 0o600
    assert {path.name for path in place.directory.iterdir()} == {"journal.db", "head", "lock", "reserve"}


async def test_it_goes_on_where_it_was(place: Place) -> None:
    async with place.open() as store:
        await write_history(store, 2)
        state, unfinished = store.state, await store.unfinished()
    async with place.open() as store:
        assert store.state == state
        assert await store.unfinished() == unfinished
        await change(store, 7)
    assert verify_journal(place.directory, key_dir=place.keys).holds


async def test_one_process_at_a_time(place: Place) -> None:
    async with place.open():
        refused = await refusal(place)
        assert f"pid {os.getpid()}" in refused.message
    async with place.open():
        pass


async def test_leaving_waits_for_what_was_accepted(place: Place) -> None:
    async with place.open() as store:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(store.note(ADA, "drift", {})) for _ in range(20)]
    assert sorted(task.result() for task in tasks) == list(range(1, 21))
    assert verify_journal(place.directory, key_dir=place.keys).size == 21


async def test_a_cancelled_call_leaves_a_journal_that_holds(place: Place) -> None:
    async with place.open() as store:
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await store.note(ADA, "drift", {})
        await store.note(ADA, "drift", {"last": True})
    assert verify_journal(place.directory, key_dir=place.keys).holds


async def test_a_crash_keeps_what_was_acknowledged(crashed: Place) -> None:
    async with crashed.open() as store:
        assert store.state.size == 23
        assert len(await store.unfinished()) == 1
    assert verify_journal(crashed.directory, key_dir=crashed.keys).holds


async def test_a_crash_between_commit_and_head_is_healed_and_noted(place: Place, tmp_path: Path) -> None:
    async with place.open() as store:
        await change(store)
        head = place.head.read_bytes()
        await store.note(ADA, "drift", {})
        left = place.copy(tmp_path / "crashed")
    left.head.write_bytes(head)
    before = verify_journal(left.directory, key_dir=left.keys)
    assert before.holds
    assert before.remarks == ("1 entries of the last transaction are not signed yet",)
    async with left.open() as store:
        (healed,) = await store.entries(only=Filter(action="journal.heal"))
        assert healed.detail == {"head": 7, "entries": 8}
        assert healed.actor.kind == "idi"
    after = verify_journal(left.directory, key_dir=left.keys)
    assert after.holds
    assert after.remarks == ()
    async with left.open() as store:
        assert len(await store.entries(only=Filter(action="journal.heal"))) == 1


async def test_a_crash_before_the_very_first_head_is_healed(place: Place) -> None:
    async with place.open():
        pass
    place.head.unlink()
    async with place.open() as store:
        assert store.state.size == 1
    (place.directory / "journal.db-wal").unlink(missing_ok=True)
    assert verify_journal(place.directory, key_dir=place.keys).holds


async def test_a_crash_while_it_is_made_leaves_nothing_in_the_way(place: Place) -> None:
    place.directory.mkdir(parents=True)
    (place.directory / "journal.db.new").write_bytes(b"half of it")
    async with place.open() as store:
        assert store.state.size == 1


def cut_wal(place: Place) -> str:
    data = place.wal.read_bytes()
    place.wal.write_bytes(data[: len(data) * 2 // 3])
    return "lost: the signed head"


def flip_wal(place: Place) -> str:
    data = bytearray(place.wal.read_bytes())
    data[-100] ^= 1
    place.wal.write_bytes(data)
    return "lost: the signed head"


def drop_wal(place: Place) -> str:
    place.wal.unlink()
    return "lost: the signed head"


def garbage(place: Place) -> str:
    place.wal.unlink()
    place.database.write_bytes(b"not a database at all" * 1000)
    return "not a database"


def missing(place: Place) -> str:
    place.database.unlink()
    return "it is missing, but head is there"


def headless(place: Place) -> str:
    place.head.unlink()
    return "head is missing"


def false_head(place: Place) -> str:
    place.head.write_bytes(place.head.read_bytes().replace(b"\n23\n", b"\n22\n"))
    return "does not verify"


def changed_entry(place: Place) -> str:
    connection = sqlite3.connect(place.database)
    connection.execute("UPDATE entry SET data = CAST(replace(data, 'jede', 'JEDE') AS BLOB) WHERE idx = 20")
    connection.commit()
    connection.close()
    return "entry 20: its bytes do not match its leaf hash"


def changed_tree(place: Place) -> str:
    connection = sqlite3.connect(place.database)
    connection.execute("UPDATE hash SET hash = zeroblob(32) WHERE level = 4 AND idx = 0")
    connection.commit()
    connection.close()
    return "are not the ones that the signed head"


def added_entries(place: Place) -> str:
    connection = sqlite3.connect(place.database)
    for index in (23, 24):
        connection.execute("INSERT INTO entry SELECT ?, data FROM entry WHERE idx = 22", (index,))
    for level, index in ((0, 23), (0, 24), (1, 11), (2, 5), (3, 2)):
        connection.execute(
            "INSERT INTO hash SELECT ?, ?, hash FROM hash WHERE level = 0 AND idx = 22", (level, index)
        )
    connection.commit()
    connection.close()
    return "one of the two was replaced"


def other_schema(place: Place) -> str:
    connection = sqlite3.connect(place.database)
    connection.execute("ALTER TABLE outbox ADD COLUMN more TEXT")
    connection.commit()
    connection.close()
    return "the table outbox is not defined as it should be"


def broken_pages(place: Place) -> str:
    connection = sqlite3.connect(place.database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(place.database.read_bytes())
    data[4096 * 2 : 4096 * 3] = bytes(4096)
    place.database.write_bytes(data)
    return ""


@pytest.mark.parametrize(
    "damage",
    [
        cut_wal,
        flip_wal,
        drop_wal,
        garbage,
        missing,
        headless,
        false_head,
        changed_entry,
        changed_tree,
        added_entries,
        other_schema,
        broken_pages,
    ],
)
async def test_damage_is_refused_with_the_file_and_the_way_out(
    crashed: Place, damage: Callable[[Place], str]
) -> None:
    words = damage(crashed)
    files = crashed.files()
    refused = await refusal(crashed)
    assert "The journal is damaged" in refused.message
    assert str(crashed.database) in refused.message
    assert words in refused.message
    assert "changes are refused" in refused.message
    assert crashed.files() == files, "nothing that somebody may want to look at was touched"
    if damage is not headless:
        report = verify_journal(crashed.directory, key_dir=crashed.keys)
        assert not report.holds, "and verification finds it too"
    assert crashed.files() == files

    command = refused.way_out.split(": ", 1)[1]
    assert command.startswith("mv ")
    await asyncio.to_thread(subprocess.run, command, shell=True, check=True)
    async with crashed.open() as store:
        assert store.state.size == 1, "a new log"
    async with crashed.open():
        pass


async def test_lost_entries_are_named(crashed: Place) -> None:
    data = bytearray(crashed.wal.read_bytes())
    # The last transaction wrote entry 22 alone, the one before entries 20 and 21.
    frames = (len(data) - 32) // (24 + 4096)
    commits = [
        at for at in range(frames) if int.from_bytes(data[32 + at * 4120 + 4 : 32 + at * 4120 + 8], "big")
    ]
    data[32 + commits[-2] * 4120 + 2000] ^= 1
    crashed.wal.write_bytes(data)
    assert "entries 20 to 22 are lost: the signed head" in (await refusal(crashed)).message
    report = verify_journal(crashed.directory, key_dir=crashed.keys)
    assert any("entries 20 to 22 are lost" in finding.text for finding in report.findings)


async def test_another_version_names_both(crashed: Place) -> None:
    connection = sqlite3.connect(crashed.database)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    files = crashed.files()
    refused = await refusal(crashed)
    assert "is of version 7" in refused.message
    assert "reads version 1" in refused.message
    assert "mv " in refused.way_out
    assert crashed.files() == files
    (finding,) = verify_journal(crashed.directory, key_dir=crashed.keys).findings
    assert "version 7" in finding.text
    assert "version 1" in finding.text


async def test_a_database_of_somebody_else(place: Place) -> None:
    place.directory.mkdir(parents=True)
    connection = sqlite3.connect(place.database)
    connection.execute("CREATE TABLE cake (id)")
    connection.commit()
    connection.close()
    assert "is not a journal" in (await refusal(place)).message


async def test_the_key(crashed: Place) -> None:
    key = crashed.keys / "log-key"
    honest = key.read_bytes()
    key.chmod(0o640)
    refused = await refusal(crashed)
    assert "can be read by others" in refused.message
    assert f"chmod 600 {key}" in refused.way_out
    key.unlink()
    assert f"{key} that signs the audit log is missing" in (await refusal(crashed)).message
    for data, words in ((b"junk", "is damaged"), (bytes(32).hex().encode(), "is another one")):
        key.write_bytes(data)
        key.chmod(0o600)
        assert words in (await refusal(crashed)).message
    key.write_bytes(honest)
    async with crashed.open():
        pass


async def test_logs_made_one_after_another_have_origins_of_their_own(tmp_path: Path) -> None:
    """Two histories signed under one name by one key would be what a log must never do."""
    origins = set()
    for number in range(3):
        async with Place(tmp_path / str(number), tmp_path / "keys").open() as store:
            origins.add(store.state.origin)
    assert len(origins) == 3
    assert {origin.rsplit("/", 1)[0] for origin in origins} == {"example.com/idi"}


async def test_a_commit_and_a_head_are_on_the_disk_when_they_return(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What no kill shows: that the disk was asked to keep it, in the right order."""
    async with place.open():
        connection = schema.connect(place.database, writing=True)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def traced_fsync(handle: int) -> None:
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def traced_rename(source: Path, target: Path) -> None:
        calls.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "rename", traced_rename)
    write_whole(place.directory / "head", b"x")
    assert calls == ["file", "rename", "folder"]


async def test_the_write_ahead_log_stays_short(place: Place) -> None:
    async with place.open() as store:
        begun = await store.begin(ADA, "up", {})
        largest = 0
        for number in range(60):
            steps = [Step("start", f"module{number}", {"text": "x" * 2000}) for _ in range(50)]
            await store.intend(begun, steps)
            largest = max(largest, place.wal.stat().st_size)
        assert place.database.stat().st_size > 2 * WAL_BYTES, "more went through it than it may hold"
        assert largest < 2 * WAL_BYTES


async def test_a_disk_that_fails_ends_writing_until_a_restart(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with place.open() as store:
        await change(store)
        size = store.state.size

        def fail(path: Path, data: bytes) -> None:
            raise OSError(errno.EIO, "Input/output error")

        with monkeypatch.context() as broken:
            broken.setattr("idi.parts.store.sqlite.writer.write_whole", fail)
            with pytest.raises(PartError, match="Input/output error") as caught:
                await store.note(ADA, "drift", {"number": 1})
            assert not caught.value.retryable
        with pytest.raises(PartError, match="cannot be written any more"):
            await store.note(ADA, "drift", {"number": 2})
        assert len(await store.entries()) == size + 1, "reading goes on"
    async with place.open() as store:
        assert [one.detail for one in await store.entries(size, only=Filter(action="drift"))] == [
            {"number": 1}
        ]
        assert len(await store.entries(only=Filter(action="journal.heal"))) == 1
        await store.note(ADA, "drift", {"number": 3})
    assert verify_journal(place.directory, key_dir=place.keys).holds


async def test_another_program_that_holds_it_is_waited_for_and_named(place: Place) -> None:
    async with place.open() as store:
        other = sqlite3.connect(place.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(PartError, match="Another program holds") as caught:
            await store.note(ADA, "drift", {})
        assert caught.value.retryable
        other.execute("ROLLBACK")
        other.close()
        await store.note(ADA, "drift", {})


async def test_opening_that_is_cancelled_leaves_nothing_open(place: Place) -> None:
    async def size() -> int:
        async with place.open() as store:
            return store.state.size

    for _ in range(5):
        with pytest.raises((TimeoutError, Refused)):  # or the one before is just closing it
            await asyncio.wait_for(size(), 0.001)
    async with asyncio.timeout(30):
        while True:
            try:
                assert await size() == 1
            except Refused:
                await asyncio.sleep(0.02)
            else:
                break


async def test_listing_from_the_files_alone(crashed: Place, place: Place) -> None:
    assert [one.index for one in list_entries(crashed.directory, newest=True, limit=2)] == [22, 21]
    assert [one.index for one in list_entries(crashed.directory, only=Filter(phase="begin"))] == [
        1,
        7,
        13,
        19,
    ]
    garbage(crashed)
    with pytest.raises(Refused, match="cannot be read"):
        list_entries(crashed.directory)
