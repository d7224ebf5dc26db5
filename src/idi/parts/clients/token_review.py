"""Who holds a token of a service account: asked of the cluster, which alone can know.

A token is proof only for the audience that it was made for, for a pod that still lives, and until it expires; whether
all of that holds, `TokenReview` says. The name of the account then says what its holder is here: `idi-jede` the module
jede (or a part of the platform), `role.deployer` a person in that role. Any other account, and each account of another
namespace, is nobody. A workload is always a pod: a token for its account that is bound to none was made by hand, and
would be an instance that does not exist.

Every call of an agent and every reconnect of a proxy asks, so answers are kept for a while: good ones for `GOOD_S` at
most and never past the token's own end, refusals for a moment. (The cluster itself keeps good ones for ten seconds, and
takes a token for a minute past its end, for clocks that differ.) They are kept under a hash, so that no token lies in
memory, and refusals by themselves, so that nonsense cannot push out what is good. Several that ask about one token at
a time share one question.

What is remembered outlives a pod, here and in the cluster, and a name may be another pod's by then (a StatefulSet gives
it again). Whoever hears of a pod's end tells it (`ended`): its tokens are refused from that moment on, whatever was
answered or is still answered of them.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.errors import PartError

AUDIENCE = "idi"
REVIEW_S = 5.0
GOOD_S = 30.0
REFUSED_S = 2.0
ENDED_S = 120.0
"""Longer than anybody remembers an answer: we for `GOOD_S`, the API server for ten seconds."""
MOST_GOOD = 4096
MOST_REFUSED = 1024
MOST_ENDED = 4096
LONGEST_TOKEN = 16 * 1024
REVIEWS = path("authentication.k8s.io/v1", "tokenreviews")
POD = "authentication.kubernetes.io/pod-name"
POD_UID = "authentication.kubernetes.io/pod-uid"
WORKLOAD_PREFIX = "idi-"
ROLE_PREFIX = "role."


@dataclass(frozen=True, slots=True)
class Workload:
    """An instance of a module or of a part of the platform: `name` is `jede` or `gateway`, `pod` its id everywhere."""

    name: str
    pod: str
    pod_uid: str


@dataclass(frozen=True, slots=True)
class Role:
    """A person, of whom only the role is known: `name` is `deployer`."""

    name: str


Who = Workload | Role
Key = TypeVar("Key", bytes, str)


@dataclass(slots=True)
class _Flight:
    """One question under way, and how many wait for it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class _Kept(Generic[Key]):
    """Answers with an end, the oldest given up for a new one."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[Key, tuple[float, Who | None]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def keep(self, key: Key, until: float, who: Who | None) -> None:
        self._answers[key] = (until, who)
        self._answers.move_to_end(key)
        while len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def get(self, key: Key, now: float) -> tuple[float, Who | None] | None:
        found = self._answers.get(key)
        if found is not None and found[0] <= now:
            del self._answers[key]
            return None
        return found


class TokenReviews:
    """Of tokens for `audience`, of service accounts of one namespace. The client may create token reviews. Good answers
    are kept for `good_s`: whoever hears of no pod's end keeps them short."""

    def __init__(
        self,
        client: Kubernetes,
        namespace: str,
        audience: str = AUDIENCE,
        *,
        good_s: float = GOOD_S,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._prefix = f"system:serviceaccount:{namespace}:"
        self._audience = audience
        self._good_s = good_s
        self._monotonic, self._clock = monotonic, clock
        self._good: _Kept[bytes] = _Kept(MOST_GOOD)
        self._refused: _Kept[bytes] = _Kept(MOST_REFUSED)
        self._ended: _Kept[str] = _Kept(MOST_ENDED)
        self._flights: dict[bytes, _Flight] = {}
        self.asked = 0
        """How often the cluster was asked."""

    async def who(self, token: str) -> Who | None:
        """Its holder, None where it is refused; a retryable `PartError` where the cluster does not say in time."""
        if not token or len(token) > LONGEST_TOKEN or not token.isascii():
            return None
        who = await self._answered(hashlib.sha256(token.encode()).digest(), token)
        if isinstance(who, Workload) and self._ended.get(who.pod_uid, self._monotonic()) is not None:
            return None
        return who

    def ended(self, pod_uid: str) -> None:
        """The cluster says that this pod is no more."""
        self._ended.keep(pod_uid, self._monotonic() + ENDED_S, None)

    async def _answered(self, key: bytes, token: str) -> Who | None:
        if (known := self._known(key)) is not None:
            return known[1]
        try:
            # The waiting counts, too: whoever calls has no longer, however many were before it.
            async with asyncio.timeout(REVIEW_S), self._alone(key):
                if (known := self._known(key)) is not None:
                    return known[1]
                return await self._review(key, token)
        except TimeoutError:
            raise PartError(f"Kubernetes did not say within {REVIEW_S:g} s whose token this is.") from None

    async def verify(self, token: str) -> str | None:
        """The node id of a proxy: the name of its pod. None for whoever is no workload."""
        who = await self.who(token)
        return who.pod if isinstance(who, Workload) else None

    def _known(self, key: bytes) -> tuple[float, Who | None] | None:
        now = self._monotonic()
        return self._good.get(key, now) or self._refused.get(key, now)

    @asynccontextmanager
    async def _alone(self, key: bytes) -> AsyncIterator[None]:
        flight = self._flights.setdefault(key, _Flight())
        flight.waiting += 1
        try:
            async with flight.lock:
                yield
        finally:
            flight.waiting -= 1
            if not flight.waiting:
                del self._flights[key]

    async def _review(self, key: bytes, token: str) -> Who | None:
        self.asked += 1
        document = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [self._audience]},
        }
        asked = self._monotonic()
        answer = await self._client.create(REVIEWS, document)
        who = self._holder(answer.get("status") or {})
        if who is None:
            self._refused.keep(key, asked + REFUSED_S, None)
        else:
            self._good.keep(key, asked + min(self._good_s, _left_s(token, self._clock())), who)
        return who

    def _holder(self, status: Mapping[str, Any]) -> Who | None:
        # A server that knows nothing of audiences would leave them out, and accept any token.
        if status.get("authenticated") is not True or self._audience not in (status.get("audiences") or ()):
            return None
        user = status.get("user") or {}
        name = str(user.get("username", ""))
        if not name.startswith(self._prefix):
            return None
        account = name.removeprefix(self._prefix)
        if account.startswith(ROLE_PREFIX):
            role = account.removeprefix(ROLE_PREFIX)
            return Role(role) if role else None
        workload = account.removeprefix(WORKLOAD_PREFIX)
        extra = user.get("extra") or {}
        pod, uid = _only(extra.get(POD)), _only(extra.get(POD_UID))
        if workload == account or not workload or not pod or not uid:
            return None
        return Workload(workload, pod, uid)


def _only(values: object) -> str:
    return values[0] if isinstance(values, list) and len(values) == 1 and isinstance(values[0], str) else ""


def _left_s(token: str, now: float) -> float:
    """How long a token that was found good is so; what it says itself can be believed by then."""
    try:
        body = token.split(".")[1]
        return max(
            0.0, float(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["exp"]) - now
        )
    except (IndexError, KeyError, TypeError, ValueError):
        return 0.0
