"""Reviews of tokens where they need no cluster: what is kept, for how long, and that nothing grows."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from idi.parts.clients import token_review
from idi.parts.clients.token_review import Role, TokenReviews, Workload
from idi.parts.errors import PartError


class Cluster:
    """Knows every token whose middle part names an account."""

    def __init__(self) -> None:
        self.asked = 0
        self.wait = asyncio.Event()
        self.wait.set()
        self.status: dict[str, Any] = {}

    async def create(self, path: str, document: Mapping[str, Any]) -> dict[str, Any]:
        self.asked += 1
        await self.wait.wait()
        [_, body, _] = str(document["spec"]["token"]).split(".")
        account = json.loads(base64.urlsafe_b64decode(body + "=="))["account"]
        user = {
            "username": f"system:serviceaccount:ns:{account}",
            "extra": {token_review.POD: ["p"], token_review.POD_UID: ["u"]},
        }
        good = {"authenticated": bool(account), "audiences": ["idi"], "user": user}
        return {"status": good | self.status}


def token(account: str, ends: float = 10_000.0, salt: int = 0) -> str:
    body = base64.urlsafe_b64encode(json.dumps({"account": account, "exp": ends, "salt": salt}).encode())
    return f"a.{body.decode().rstrip('=')}.b"


class Time:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def reviews(cluster: Cluster, time: Time) -> TokenReviews:
    return TokenReviews(cluster, "ns", monotonic=time, clock=time)  # type: ignore[arg-type]


async def test_good_ones_are_kept_for_a_while_and_refusals_for_a_moment(
    reviews: TokenReviews, cluster: Cluster, time: Time
) -> None:
    for life_s, held, who in ((30, token("role.a"), Role("a")), (2, token(""), None)):
        before = cluster.asked
        assert await reviews.who(held) == who
        time.now += life_s - 0.1
        assert await reviews.who(held) == who
        assert cluster.asked == before + 1
        time.now += 0.2
        assert await reviews.who(held) == who
        assert cluster.asked == before + 2


async def test_no_answer_is_kept_past_the_end_of_the_token(
    reviews: TokenReviews, cluster: Cluster, time: Time
) -> None:
    held = token("idi-jede", ends=time.now + 5)
    assert await reviews.who(held) == Workload("jede", "p", "u")
    time.now += 6
    await reviews.who(held)
    assert cluster.asked == 2


async def test_what_is_kept_has_a_bound_and_no_token_in_it(
    reviews: TokenReviews, monkeypatch: pytest.MonkeyPatch
) -> None:
    reviews._good._most = reviews._refused._most = reviews._ended._most = 10
    good = token("role.a")
    await reviews.who(good)
    for number in range(50):
        await reviews.who(token("", salt=number))
        reviews.ended(str(number))
    assert len(reviews._refused) == len(reviews._ended) == 10
    assert len(reviews._good) == 1
    kept = repr([reviews._good._answers, reviews._refused._answers])
    assert good not in kept
    assert not reviews._flights


@pytest.mark.requirement("S6", "T4")
async def test_a_pod_that_is_no_more_is_nobody_whatever_was_or_is_still_answered(
    reviews: TokenReviews, cluster: Cluster, time: Time
) -> None:
    held = token("idi-jede")
    assert await reviews.verify(held) == "p"
    reviews.ended("another")
    assert await reviews.verify(held) == "p"
    reviews.ended("u")
    assert await reviews.verify(held) is None
    # The cluster remembers for a while, too.
    time.now += token_review.GOOD_S + 1
    before = cluster.asked
    assert await reviews.verify(held) is None
    assert cluster.asked == before + 1
    assert await reviews.who(token("role.a")) == Role("a")


async def test_a_cancelled_caller_leaves_the_question_to_the_next(
    reviews: TokenReviews, cluster: Cluster
) -> None:
    cluster.wait.clear()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(reviews.who(token("role.a")))
        second = group.create_task(reviews.who(token("role.a")))
        await asyncio.sleep(0.01)
        assert cluster.asked == 1
        first.cancel()
        cluster.wait.set()
    assert second.result() == Role("a")
    assert cluster.asked == 2


async def test_a_slow_cluster_is_a_failure_for_all_who_wait_at_the_same_time(
    reviews: TokenReviews, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_review, "REVIEW_S", 0.05)
    cluster.wait.clear()
    asked = [reviews.who(token("role.a")) for _ in range(20)]
    async with asyncio.timeout(1):
        found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(one, PartError) and one.retryable for one in found)
    assert not reviews._flights


@pytest.mark.parametrize(
    "status",
    [
        {"authenticated": "true"},
        {"audiences": []},
        {"audiences": None},
        {"audiences": ["other"]},
        {"user": None},
        {"user": {"username": "system:serviceaccount:ns:idi-jede"}},
        {"user": {"username": "system:serviceaccount:ns:idi-jede", "extra": {token_review.POD: ["a", "b"]}}},
        {"user": {"username": "system:serviceaccount:other:role.a"}},
        {"user": {"username": "system:serviceaccount:ns:x:role.a"}},
        {"user": {"username": "system:serviceaccount:ns:role."}},
        {"user": {"username": "admin"}},
    ],
)
async def test_anything_but_the_whole_of_it_is_a_refusal(
    reviews: TokenReviews, cluster: Cluster, status: dict[str, Any]
) -> None:
    cluster.status = status
    assert await reviews.who(token("idi-jede")) is None
