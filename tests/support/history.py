"""A history of requests, each as its client saw it, and what is to be held against it: pure.

Every client numbers its requests, names each one of them, and sends the next when it knows what became of the last.
So a request that is missing in the history is seen to be missing, an answer says by its name whose it is, and what
instances say that they worked on can be laid beside it. All times are of one clock.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

OK = 200
MOST_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Request:
    """`status` 0: no answer. `by`: the instances that answered, the one that was asked first. `echoed`: the name that
    the answer carries."""

    client: str
    number: int
    method: str
    sent: float
    ended: float
    status: int
    why: str = ""
    by: tuple[str, ...] = ()
    echoed: str = ""

    @property
    def name(self) -> str:
        return f"{self.client}-{self.number}"

    @property
    def ok(self) -> bool:
        return self.status == OK

    def __str__(self) -> str:
        end = self.ended - self.sent
        return f"{self.method} {self.name} at {self.sent:.2f} after {end:.2f} s: {self.status} {self.why}".strip()


@dataclass(frozen=True, slots=True)
class Window:
    """What was under way in it may fail: it has to have been sent before `until`, and to have ended after `since`."""

    since: float
    until: float
    methods: frozenset[str] = frozenset()
    """Empty: all."""

    def permits(self, request: Request) -> bool:
        by_method = not self.methods or request.method in self.methods
        return by_method and request.sent <= self.until and request.ended >= self.since


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outside`: failures that nothing permits. `ghosts`: answers of instances that were gone when they were asked.
    `crossed`: answers to another request. `repeated`: worked on more than once though not idempotent. `missing`: sent,
    and not in the history. `gaps`: each client's longest time without a success. `slowest` success in seconds."""

    sent: int
    failed: int
    gaps: Mapping[str, float]
    slowest: float
    by: Mapping[str, int]
    outside: Sequence[Request] = ()
    ghosts: Sequence[Request] = ()
    crossed: Sequence[Request] = ()
    repeated: Sequence[str] = ()
    missing: Sequence[str] = ()

    @property
    def gap(self) -> float:
        return max(self.gaps.values(), default=0.0)

    @property
    def faults(self) -> list[str]:
        """Everything that may not be, in words; empty where nothing is."""
        found = []
        for words, those in (
            ("failed and may not", self.outside),
            ("answered by an instance that was gone", self.ghosts),
            ("answered with another's answer", self.crossed),
            ("worked on more than once", self.repeated),
            ("missing in the history", self.missing),
        ):
            if those:
                shown = "; ".join(str(one) for one in those[:MOST_SHOWN])
                found.append(f"{len(those)} {words}: {shown}")
        return found

    def __str__(self) -> str:
        return (
            f"sent {self.sent}, failed {self.failed}, longest without success {self.gap:.2f} s, "
            f"slowest success {self.slowest:.2f} s"
        )


def read(text: str) -> list[Request]:
    """The lines that a load wrote, one a request; other lines of its output are none."""
    found = []
    for line in text.splitlines():
        if line.startswith("["):
            client, number, method, sent, ended, status, why, by, echoed = json.loads(line)
            found.append(Request(client, number, method, sent, ended, status, why, tuple(by), echoed))
    return found


def judge(
    history: Iterable[Request],
    permitted: Iterable[Window] = (),
    gone: Mapping[str, float] = {},
    worked: Iterable[tuple[str, str]] = (),
    idempotent: frozenset[str] = frozenset({"GET"}),
) -> Verdict:
    """`gone`: from when on an instance is there no more. `worked`: what instances say they worked on, (instance, name
    of the request)."""
    requests, windows = sorted(history, key=lambda one: (one.client, one.number)), [*permitted]
    clients: dict[str, list[Request]] = defaultdict(list)
    for one in requests:
        clients[one.client].append(one)
    good = [one for one in requests if one.ok]
    times = Counter(worked)
    changing = {one.name for one in requests if one.method not in idempotent}
    return Verdict(
        sent=len(requests),
        failed=len(requests) - len(good),
        gaps={client: longest_without(those) for client, those in clients.items()},
        slowest=max((one.ended - one.sent for one in good), default=0.0),
        by=Counter(name for one in good for name in one.by),
        outside=[one for one in requests if not one.ok and not any(w.permits(one) for w in windows)],
        ghosts=[one for one in good if any(one.sent > gone[name] for name in one.by if name in gone)],
        crossed=[one for one in good if one.echoed != one.name],
        repeated=sorted(repeated(times, changing)),
        missing=[name for client, those in clients.items() for name in holes(client, those)],
    )


def longest_without(requests: Sequence[Request]) -> float:
    """The longest time of one client from a success to the next; its beginning and its end count as one each."""
    ends = [one.ended for one in requests if one.ok]
    marks = [requests[0].sent, *sorted(ends), max(one.ended for one in requests)]
    return max(later - earlier for earlier, later in pairwise(marks))


def holes(client: str, requests: Sequence[Request]) -> Iterable[str]:
    """Numbers that are there not once; the last ones of a client nobody can miss."""
    numbers = Counter(one.number for one in requests)
    return (f"{client}-{number}" for number in range(max(numbers) + 1) if numbers[number] != 1)


def repeated(times: Mapping[tuple[str, str], int], changing: set[str]) -> Iterable[str]:
    """Requests that a module worked on twice, in one instance or in two."""
    by_module: Counter[tuple[str, str]] = Counter()
    for (instance, name), count in times.items():
        by_module[(module_of(instance), name)] += count
    return {name for (_, name), count in by_module.items() if count > 1 and name in changing}


def module_of(instance: str) -> str:
    """Pods of a module are called after it."""
    return instance.partition("-")[0]
