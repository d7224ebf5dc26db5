"""Bounded files under a writer that never stops, and reading them by time."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from idi.parts.targets.local.log_file import LONGEST_LINE, LogFile
from idi.parts.targets.local.marks import MOST_MARKS, Marks
from idi.parts.targets.local.output import Logs
from idi.parts.targets.printed import LogLine
from idi.world.types import InstanceId
from tests.support.targets import LocalStage, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("O2")

KIB = 1024


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LocalStage]:
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid), sidecar=None) as made:
        yield made


async def test_a_writer_that_never_stops_stays_within_the_bound(stage: LocalStage) -> None:
    largest = 256 * KIB
    stage.options["logs"] = Logs(stage.folder / "logs", largest, every_s=0.02)
    async with stage.control() as target:
        await target.ensure(stage.spec(environment={"CHATTER": "1"}), 1)
        await stage.until(ready(stage))
        log, older = stage.folder / "logs" / "jede-1.log", stage.folder / "logs" / "jede-1.log.1"
        cuts, inode, before = 0, log.stat().st_ino, 0
        async with asyncio.timeout(20):
            while cuts < 5:
                size = log.stat().st_size
                cuts += size < before
                before = size
                assert not older.exists() or older.stat().st_size <= 2 * largest + 256 * KIB
                await asyncio.sleep(0.005)
        assert log.stat().st_ino == inode  # the writer was not disturbed
        await target.remove(stage.spec().module, stage.spec().revision)
        # What is left is what was written last, whole lines in order; only around a cut may some be missing.
        whole = [line for line in older.read_text().splitlines() if re.fullmatch(r"\d{12}", line)]
        numbers = [int(line) for line in whole]
        assert len(numbers) > 1000
        assert numbers == sorted(numbers)
        assert len(target.last_lines(InstanceId("jede-1"), 5)) == 5


def write(path: Path, text: str, at: float | None = None) -> None:
    with open(path, "a") as file:
        file.write(text)
    if at is not None:
        os.utime(path, (at, at))


def lines_of(
    logs: Logs, *, since: float = 0.0, grep: str = "", sources: list[str] | None = None
) -> list[LogLine]:
    return list(logs.reader(sources, re.compile(grep) if grep else None).read(since))


def test_lines_are_read_in_order_of_time(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    jede, cam, part = logs.file("jede-1"), logs.file("cam-1"), logs.file("openbao")
    for second in range(4):
        for file, name in ((jede, "jede"), (cam, "cam"), (part, "bao")):
            write(file.path, f"{name} {second}\n", at=1000.0 + second + (0.5 if name == "cam" else 0.0))
            file.look()
    assert [(line.time, line.source, line.module, line.line) for line in lines_of(logs)[:3]] == [
        (1000.0, "jede-1", "jede", "jede 0"),
        (1000.5, "cam-1", "cam", "cam 0"),
        (1001.0, "jede-1", "jede", "jede 1"),
    ]
    assert [line.line for line in lines_of(logs, since=1002.2)] == ["cam 2", "jede 3", "cam 3"]
    assert [line.line for line in lines_of(logs, grep="[01]$")] == ["jede 0", "cam 0", "jede 1", "cam 1"]
    assert [(line.module, line.line) for line in lines_of(logs, sources=["openbao"], since=1003)] == [
        ("", "bao 3")
    ]


def test_times_outlive_control_and_cuts(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    file = logs.file("jede-1")
    for second in range(100):
        write(file.path, f"line {second:04d}\n", at=1000.0 + second)
        file.look()
        if second == 49:
            file.cut(100)
    file.save()
    again = Logs(tmp_path)
    read = lines_of(again)
    assert [line.line for line in read] == [f"line {second:04d}" for second in range(40, 100)]
    assert [line.time for line in read] == [1000.0 + second for second in range(40, 100)]
    assert [line.line for line in lines_of(again, since=1098.0)] == ["line 0098", "line 0099"]
    # A control that was killed after a cut, before it could note that.
    os.truncate(file.path, 0)
    write(file.path, "after\n", at=2000.0)
    late = Logs(tmp_path)
    assert [(line.time, line.line) for line in lines_of(late) if line.line == "after"] == [(2000.0, "after")]


def test_without_marks_everything_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "jede-1.log.1", "old\n")
    write(tmp_path / "jede-1.log", "new\nlast words without an end", at=1000.0)
    read = lines_of(Logs(tmp_path))
    assert [(line.time, line.line) for line in read] == [
        (1000.0, "old"),
        (1000.0, "new"),
        (1000.0, "last words without an end"),
    ]
    (tmp_path / "jede-1.log.marks").write_text("{")
    assert len(lines_of(Logs(tmp_path))) == 3


def test_odd_lines(tmp_path: Path) -> None:
    with open(tmp_path / "jede-1.log", "wb") as file:
        file.write(b"\n\xff\xfe\r\n" + b"x" * (2 * LONGEST_LINE + 5) + b"\nend\n")
    read = [line.line for line in lines_of(Logs(tmp_path))]
    assert read[:2] == ["", "\ufffd\ufffd"]
    assert [len(line) for line in read[2:5]] == [LONGEST_LINE, LONGEST_LINE, 5]
    assert read[5:] == ["end"]
    assert Logs(tmp_path).last_lines("jede-1", 1) == ["end"]
    assert Logs(tmp_path).last_lines("jede-1", 0) == []
    assert Logs(tmp_path).last_lines("nobody", 3) == []


def test_last_lines_reach_back_over_a_cut(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "jede-1.log")
    write(file.path, "".join(f"{number}\n" for number in range(100)))
    file.cut(1000)
    write(file.path, "100\n101\n")
    assert file.tail(4) == ["98", "99", "100", "101"]


def test_marks_are_bounded(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "jede-1.log")
    for second in range(2 * MOST_MARKS):
        write(file.path, "x\n", at=1000.0 + second)
        file.look()
    file.save()
    assert (tmp_path / "jede-1.log.marks").stat().st_size <= 16 * (MOST_MARKS + 1)
    assert file.time(2 * 2 * MOST_MARKS) == 1000.0 + 2 * MOST_MARKS - 1  # the newest stay exact
    assert file.time(2) <= 1000.0 + 2 * MOST_MARKS


def test_what_is_a_day_old_is_thinned_evenly_and_the_last_hour_not_at_all(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "jede-1.log.marks")
    day = 24 * 3600
    for second in range(day):
        marks.note(100 * (second + 1), (1000 + second) * 10**9)
    marks.save()
    again = Marks(tmp_path / "jede-1.log.marks")
    assert again.load()
    late = [(again.time(100 * (second + 1)) or 0.0) - (1000 + second) for second in range(0, day, 7)]
    assert min(late) >= 0
    assert max(late) <= 60
    assert max(late[-3600 // 7 :]) == 0
    assert (tmp_path / "jede-1.log.marks").stat().st_size <= 16 * (MOST_MARKS + 1)


def test_half_a_record_is_left_out_and_written_over(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "jede-1.log")
    marks = tmp_path / "jede-1.log.marks"
    for second in range(3):
        write(file.path, "x\n", at=1000.0 + second)
        file.look()
        file.save()
    os.truncate(marks, marks.stat().st_size - 5)
    again = LogFile(file.path)
    assert [again.time(2 * n) for n in (1, 2)] == [1000.0, 1001.0]
    write(file.path, "x\n", at=1003.0)
    again.look()
    again.save()
    assert marks.stat().st_size == 16 * 4
    assert [LogFile(file.path).time(2 * n) for n in (1, 2, 4)] == [1000.0, 1001.0, 1003.0]


async def test_others_see_times_as_control_does_and_what_is_quiet_is_not_written(tmp_path: Path) -> None:
    """Whoever reads files must not have to ask control: marks are there after each look."""
    logs = Logs(tmp_path, every_s=0.02)
    other = Logs(tmp_path)
    write(logs.path("quiet-1"), "once\n", at=900.0)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(logs.keep_bounded())
        for second in range(5):
            write(logs.path("jede-1"), f"jede {second}\n", at=1000.0 + second)
            write(logs.path("cam-1"), f"cam {second}\n", at=1000.5 + second)
            await asyncio.sleep(0.1)
        before = (tmp_path / "quiet-1.log.marks").stat()
        read = [(line.time, line.line) for line in lines_of(other)]
        assert read == [
            (900.0, "once"),
            *((1000.0 + n / 2, f"{'cam' if n % 2 else 'jede'} {n // 2}") for n in range(10)),
        ]
        assert [line.line for line in lines_of(other, since=1003.2)] == ["cam 3", "jede 4", "cam 4"]
        await asyncio.sleep(0.1)
        after = (tmp_path / "quiet-1.log.marks").stat()
        assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
        task.cancel()


def test_a_line_that_was_begun_before_is_whole(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "jede-1.log")
    for text, at in (("old\nbeg", 1000.0), ("un\nnew\n", 1001.0)):
        write(file.path, text, at)
        file.look()
    file.save()
    assert [line.line for line in lines_of(Logs(tmp_path), since=1000.5)] == ["begun", "new"]
    last = Logs(tmp_path).reader().last(5, 1000.5)
    assert [line.line for line in last] == ["begun", "new"]


@pytest.mark.parametrize("seed", range(20))
def test_the_last_lines_are_the_end_of_all(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    logs = Logs(tmp_path)
    for look in range(60):
        for name in ("cam-1", "jede-1", "jede-1.sidecar", "jede-2"):
            line = rng.choice(["", "a", "é" * 9, "error\r", "x" * 3000, "y" * rng.choice([65536, 140000])])
            write(logs.path(name), line + rng.choice(["\n", "\n", ""]), at=1000.0 + look // 2)
            logs.file(name).look()
            if rng.random() < 0.02:
                logs.file(name).cut(100_000)
    for file in (logs.file(name) for name in logs.sources()):
        file.save()
    for grep in (None, re.compile("^(error|a)$"), re.compile("nowhere")):
        for since in (0.0, 1010.0, 1029.0, 2000.0):
            every = list(Logs(tmp_path).reader(None, grep).read(since))
            for count in (1, 7, 10_000):
                assert Logs(tmp_path).reader(None, grep).last(count, since) == every[-count:]
            each = Logs(tmp_path).reader(None, grep).last(3, since, each=True)
            kept = {id(line) for m in ("jede", "cam") for line in [e for e in every if e.module == m][-3:]}
            assert each == [line for line in every if id(line) in kept]


async def test_following_from_another_process_goes_on_over_a_cut(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    write(logs.path("jede-1"), "before\n" * 1000)
    logs.file("jede-1").look()
    logs.file("jede-1").save()
    reader = Logs(tmp_path).reader()
    assert [line.line for line in reader.last(1)] == ["before"]
    follow = reader.follow()
    async with asyncio.timeout(5):
        write(logs.path("jede-1"), "one\n")
        assert (await anext(follow)).line == "one"
        write(logs.path("jede-1"), "two\n")
        logs.file("jede-1").cut(10_000)
        write(logs.path("jede-1"), "three\n")
        assert [(await anext(follow)).line for _ in range(2)] == ["two", "three"]


async def test_following(tmp_path: Path) -> None:
    logs = Logs(tmp_path)
    write(logs.path("jede-1"), "before\n")
    reader = logs.reader()
    assert [line.line for line in reader.read()] == ["before"]
    heard: list[str] = []

    async def follow() -> None:
        async for line in reader.follow():
            heard.append(f"{line.source} {line.line}")

    async def until(count: int) -> None:
        async with asyncio.timeout(5):
            while len(heard) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(follow())
        await asyncio.sleep(0.05)
        write(logs.path("jede-1"), "one\nhal")
        await until(1)
        write(logs.path("jede-1"), "f\n")
        write(logs.path("cam-1"), "a new instance\n")
        await until(3)
        logs.file("jede-1").cut(1000)
        write(logs.path("jede-1"), "after the cut\n")
        await until(4)
        task.cancel()
    assert sorted(heard[1:3]) == ["cam-1 a new instance", "jede-1 half"]
    assert [heard[0], heard[3]] == ["jede-1 one", "jede-1 after the cut"]


def test_reading_a_large_log_by_time_is_quick(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "jede-1.log")
    for second in range(80):
        write(file.path, ("x" * 99 + "\n") * 1000, at=1000.0 + second)
        file.look()
    file.save()
    clock = time.perf_counter()
    read = lines_of(Logs(tmp_path), since=1079.0)
    took = time.perf_counter() - clock
    assert len(read) == 1000
    print(f"1,000 of 80,000 lines in {took * 1000:.1f} ms")
