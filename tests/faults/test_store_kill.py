"""kill -9 at any moment: whatever was acknowledged is there, and the journal opens and holds."""

import os
import random
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idi.ledger.entry import Entry
from idi.parts.store.interface import Filter
from idi.parts.store.sqlite.check import verify_journal
from idi.parts.store.sqlite.reader import snapshot
from tests.support.journals import Place
from tests.support.scale import scale

pytestmark = pytest.mark.requirement("S5")

ROOT = Path(__file__).resolve().parents[2]


def run_and_kill(place: Place, rng: random.Random, seed: int, *, die: str = "") -> list[tuple[str, int]]:
    """Let a child write for a while, kill it (or let it kill itself), and give what it was told."""
    command = [
        sys.executable,
        "-m",
        "tests.support.store_child",
        str(place.directory),
        str(place.keys),
        str(seed),
        die,
    ]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        # At times while it starts (the very first start makes the journal), at times in the middle of work.
        if die:
            child.wait(60)
        else:
            if rng.random() < 0.7:
                assert select.select([child.stdout], [], [], 60)[0], "it never came to write"
            time.sleep(rng.uniform(0, 0.4))
    finally:
        child.send_signal(signal.SIGKILL)
        told, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors.decode()
    lines = [line.split() for line in told.decode().splitlines()]
    return [(kind, int(index)) for kind, index in lines]


def acknowledgements(entries: list[Entry]) -> set[tuple[str, int | None]]:
    """Everything that these entries can be the acknowledgement of."""
    return {(one.phase, one.step if one.phase in ("intent", "outcome") else one.change) for one in entries}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("journal", range(scale(1, 10)))
async def test_killed_again_and_again(tmp_path: Path, seeded: random.Random, journal: int) -> None:
    place = Place(tmp_path / "journal", tmp_path / "keys")
    before: list[bytes] = []
    heads: list[bytes] = []
    told_in_all = 0
    for round_ in range(scale(6, 30)):
        told = run_and_kill(place, seeded, seeded.randrange(1 << 30))
        if not place.database.exists():
            assert not told
            continue
        if place.head.exists():
            report = verify_journal(place.directory, key_dir=place.keys, kept_heads=heads)
            assert report.holds, (round_, report.findings)
            heads = [*heads[-3:], place.head.read_bytes()]
        with snapshot(place.database) as view:
            data = [view.data(index) for index in range(view.size())]
            new = [view.entry(index) for index in range(len(before), view.size())]
        assert data[: len(before)] == before, "what was written stays as it was"
        missing = set(told) - acknowledgements(new)
        assert not missing, (round_, missing)
        told_in_all += len(told)
        before = data
    async with place.open() as store:
        assert store.state.size >= len(before)
    assert verify_journal(place.directory, key_dir=place.keys, kept_heads=heads).holds
    assert told_in_all > 0


@pytest.mark.parametrize("moment", ["before the head", "before its rename", "after its rename"])
async def test_dead_between_commit_and_head(tmp_path: Path, seeded: random.Random, moment: str) -> None:
    """The moments that a kill by the clock seldom meets, each met on purpose."""
    place = Place(tmp_path / "journal", tmp_path / "keys")
    for round_ in range(scale(2, 20)):
        told = run_and_kill(place, seeded, round_, die=f"{seeded.randrange(2, 30)}:{moment}")
        report = verify_journal(place.directory, key_dir=place.keys)
        assert report.holds, report.findings
        assert bool(report.remarks) == (moment != "after its rename"), "the database is ahead of its head"
        async with place.open() as store:
            healed = await store.entries(newest=True, limit=1, only=Filter(action="journal.heal"))
            assert bool(healed) == (moment != "after its rename")
            entries: list[Entry] = []
            while len(entries) < store.state.size:
                entries += await store.entries(len(entries), 1000)
        assert set(told) <= acknowledgements(entries)
        assert verify_journal(place.directory, key_dir=place.keys).remarks == ()
