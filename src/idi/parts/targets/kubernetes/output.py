"""What containers print, as Kubernetes keeps it: the twin of the laptop's files.

Kubernetes keeps the newest output of each container of a pod that is there, and of the one before it in the same pod
where that crashed; of a pod that is gone it keeps nothing. What is there is merged by time out of one stream for each
container, so that no more than a few lines of each are ever in memory. Following begins where that ended: each
container has a task that follows it, through restarts and broken connections, and a watch brings new pods.

Bounds: MOST_SOURCES containers for one reader, READERS of them at a time, MOST_LINES of a container, 16 KiB of a line.
What is left out is said in a note.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from idi.parts.clients.kubernetes import Kubernetes, KubernetesError, path
from idi.parts.clients.kubernetes_watch import Kind, Watch
from idi.parts.errors import PartError, Refused
from idi.parts.targets.kubernetes.containers import Life, Source, life_of, sources_of
from idi.parts.targets.local.output import Logs
from idi.parts.targets.printed import LogLine

MOST_SOURCES = 100
READERS = 4
MOST_LINES = 10_000
STREAMS = READERS * (MOST_SOURCES + 2)
"""Of the client that is given here."""
WINDOW_S = 0.2
"""Lines that come within it are put in order."""
BEAT_S = 5.0
AGAIN_S = 1.0
WAITING = 256
BESIDE = 16
GONE = (400, 404)
"""What is answered for a container that has printed nothing yet, or whose pod has just gone."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is left out, and why."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Live:
    """From here on lines are new."""


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing came for a while."""


Item = LogLine | Note | Live | Beat


@dataclass(frozen=True, slots=True)
class Asked:
    """`names` of containers (containers.py); none: every module's. `tail`: the last lines of each container alone (0:
    all); `since`: not older ones."""

    names: frozenset[str] = frozenset()
    tail: int = 0
    since: float = 0.0
    follow: bool = False


@dataclass(slots=True)
class Output:
    """Reads what an environment's containers print. `files` is what control has beside it, as on a laptop."""

    api: Kubernetes
    namespace: str
    files: Logs
    _readers: int = 0

    async def read(self, asked: Asked) -> AsyncGenerator[Item]:
        """Raises `Refused` before the first item where it is too much."""
        if self._readers >= READERS:
            raise Refused(
                f"{READERS} others read logs at this moment.", "Try again when one of them has ended."
            )
        pods = (await self.api.listing(path("v1", "pods", self.namespace))).items
        reader = Reader(self.api, self.namespace, self.files, asked)
        for pod in pods:
            reader.learn(pod)
        if len(reader.chosen) > MOST_SOURCES:
            raise Refused(
                f"That would be {len(reader.chosen)} containers, more than {MOST_SOURCES}.",
                "Name a module or a pod.",
            )
        return self._counted(reader)

    async def _counted(self, reader: Reader) -> AsyncGenerator[Item]:
        self._readers += 1
        try:
            async with aclosing(reader.items()) as items:
                async for item in items:
                    yield item
        finally:
            self._readers -= 1


@dataclass(slots=True)
class Reader:
    """One reading. Not for concurrent use."""

    api: Kubernetes
    namespace: str
    files: Logs
    asked: Asked
    chosen: dict[str, Source] = field(default_factory=dict)
    _pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    _last: dict[str, float] = field(default_factory=dict)
    """When the last line of each was printed."""
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def learn(self, pod: dict[str, Any], *, gone: bool = False) -> list[Source]:
        """What became of a pod; those of its containers that are asked for and new."""
        name = str(pod["metadata"]["name"])
        if gone:
            self._pods.pop(name, None)
            self.chosen = {key: one for key, one in self.chosen.items() if one.pod != name}
        else:
            self._pods[name] = pod
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        wanted = [] if gone else [one for one in sources_of(pod) if one.among(self.asked.names)]
        new = [one for one in wanted if one.name not in self.chosen]
        self.chosen.update({one.name: one for one in new})
        return new

    async def items(self) -> AsyncGenerator[Item]:
        async with aclosing(self._kept()) as kept:
            async for item in kept:
                yield item
        if self.asked.follow:
            yield Live()
            async with aclosing(self._coming()) as coming:
                async for item in coming:
                    yield item

    # --- what is there

    async def _kept(self) -> AsyncGenerator[Item]:
        """All of it, in order of time."""
        notes: list[Note] = []
        async with AsyncExitStack() as stack:
            ways = [self._of(source, notes) for source in self.chosen.values()]
            ways += [self._of_file(name) for name in self._files()]
            for way in ways:
                stack.push_async_callback(way.aclose)
            places = asyncio.Semaphore(BESIDE)

            async def first(way: AsyncGenerator[LogLine]) -> LogLine | None:
                async with places:
                    return await anext(way, None)

            heads = await asyncio.gather(*(first(way) for way in ways))
            heap = [(line.time, at, line) for at, line in enumerate(heads) if line is not None]
            heapq.heapify(heap)
            while heap:
                _, at, line = heap[0]
                self._last[line.source] = line.time
                yield line
                following = await anext(ways[at], None)
                if following is None:
                    heapq.heappop(heap)
                else:
                    heapq.heapreplace(heap, (following.time, at, following))
        for note in notes:
            yield note

    async def _of(self, source: Source, notes: list[Note]) -> AsyncGenerator[LogLine]:
        life = self._life(source)
        if not life.id:
            return
        for previous in (True, False) if life.before else (False,):
            count = 0
            try:
                async with aclosing(self._lines(source, previous=previous, ends=True)) as lines:
                    async for line in lines:
                        count += 1
                        yield line
            except PartError as error:
                if not (isinstance(error, KubernetesError) and error.status in GONE):
                    notes.append(Note(source.name, f"its log cannot be had: {error.message}"))
            if count >= MOST_LINES and not self.asked.tail:
                notes.append(Note(source.name, f"only its last {MOST_LINES} lines are shown"))

    async def _of_file(self, name: str) -> AsyncGenerator[LogLine]:
        reader = self.files.reader([name])
        for line in await asyncio.to_thread(reader.last, self.asked.tail or MOST_LINES, self.asked.since):
            yield line

    def _files(self) -> list[str]:
        return [name for name in self.files.sources() if name in self.asked.names]

    # --- what comes

    async def _coming(self) -> AsyncGenerator[Item]:
        """A group of tasks wraps what goes through it, also that nobody listens any more: so nothing does."""
        came: asyncio.Queue[Item | PartError] = asyncio.Queue(WAITING)
        failed: PartError | None = None
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(self._follow_all(came))
            try:
                while failed is None:
                    for item in await gathered(came):
                        if isinstance(item, PartError):
                            failed = item
                        else:
                            yield item
            except GeneratorExit:
                pass
            finally:
                work.cancel()
        if failed:
            raise failed

    async def _follow_all(self, came: asyncio.Queue[Item | PartError]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for source in self.chosen.values():
                    tasks.create_task(self._follow(source, came))
                for name in self._files():
                    tasks.create_task(self._follow_file(name, came))
                async for event in Watch(self.api, path("v1", "pods", self.namespace)):
                    if event.kind is Kind.SYNCED:
                        continue
                    for source in self.learn(event.object, gone=event.kind is Kind.DELETED):
                        if len(self.chosen) > MOST_SOURCES:
                            del self.chosen[source.name]
                            await came.put(Note(source.name, f"not followed: {MOST_SOURCES} others are"))
                            continue
                        tasks.create_task(self._follow(source, came))
        except* PartError as errors:
            await came.put(next(each for each in leaves(errors) if isinstance(each, PartError)))

    async def _follow(self, source: Source, came: asyncio.Queue[Item | PartError]) -> None:
        """Through the lives of its container, until the pod is gone."""
        done = ""
        while self.chosen.get(source.name) is source:
            life = self._life(source)
            if not life.id or (life.id == done and not life.running):
                await self._changed.wait()
                continue
            last = self._last.get(source.name, 0.0)
            try:
                async with aclosing(self._lines(source, after=last)) as lines:
                    async for line in lines:
                        self._last[source.name] = line.time
                        await came.put(line)
                done = life.id
            except PartError:
                pass  # its node went away, or it has not begun to print
            await asyncio.sleep(AGAIN_S)

    async def _follow_file(self, name: str, came: asyncio.Queue[Item | PartError]) -> None:
        reader = self.files.reader([name])
        async for line in reader.follow():
            await came.put(line)

    # --- within

    def _life(self, source: Source) -> Life:
        pod = self._pods.get(source.pod)
        return life_of(pod, source.container) if pod is not None else Life("", running=False, before=False)

    async def _lines(
        self, source: Source, *, previous: bool = False, ends: bool = False, after: float = 0.0
    ) -> AsyncGenerator[LogLine]:
        since = self.asked.since
        tail = MOST_LINES if after or not self.asked.tail else self.asked.tail
        follow = self.api.follow(
            source.pod,
            source.container,
            namespace=self.namespace,
            tail=tail,
            timestamps=True,
            since=whole_second(max(since, after)),
            previous=previous,
            ends=ends,
        )
        async with aclosing(follow) as raw:
            async for text in raw:
                time, line = parted(text)
                if time >= since and time > after:
                    yield LogLine(time, source.name, source.module, line)


async def gathered(came: asyncio.Queue[Item | PartError]) -> list[Item | PartError]:
    """What came within a moment, lines in order of time; a beat where nothing does for a while."""
    try:
        async with asyncio.timeout(BEAT_S):
            found = [await came.get()]
    except TimeoutError:
        return [Beat()]
    await asyncio.sleep(WINDOW_S)
    while not came.empty():
        found.append(came.get_nowait())
    return sorted(found, key=lambda item: item.time if isinstance(item, LogLine) else float("inf"))


def parted(text: str) -> tuple[float, str]:
    """A line's time and the line, out of what Kubernetes gives."""
    stamp, _, line = text.partition(" ")
    return seconds_of(stamp), line


def seconds_of(stamp: str) -> float:
    """Kubernetes' time, to the nanosecond, as seconds since the epoch; 0 where it is none."""
    try:
        return datetime.fromisoformat(stamp[:19] + "+00:00").timestamp() + fraction(stamp[19:])
    except ValueError:
        return 0.0


def fraction(rest: str) -> float:
    """Of `.123456789Z`, or `Z`."""
    return float(f"0{rest.removesuffix('Z') or '.0'}")


def whole_second(at: float) -> str:
    """As the API takes a time; empty for none."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at > 0 else ""


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each
