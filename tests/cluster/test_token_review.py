"""Whose token it is, tried with real tokens of a real cluster, the good and each kind of bad."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from idi.parts.clients.kubernetes import Kubernetes
from idi.parts.clients.token_review import Role, TokenReviews, Workload
from idi.parts.errors import PartError
from tests.support.cluster.access import access, gated
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.objects import PORT, Namespace, container

pytestmark = pytest.mark.requirement("K1", "S6")

FORGOTTEN_S = 30.0
"""The API server remembers a good token for ten seconds."""


@pytest.fixture
async def client(kube: Client, tmp_path: Path) -> AsyncIterator[Kubernetes]:
    async with Kubernetes(access(kube.kubeconfig, tmp_path)) as client:
        yield client


@pytest.fixture
def reviews(client: Kubernetes, namespace: Namespace) -> TokenReviews:
    return TokenReviews(client, namespace.name)


def account(namespace: Namespace, name: str) -> None:
    namespace.kube.api.create(namespace.path("serviceaccounts"), {"metadata": {"name": name}})


def token(namespace: Namespace, name: str, *more: str, audience: str = "idi") -> str:
    command = ["create", "token", name, "--audience", audience, "--duration", "10m", *more]
    return namespace.kube.kubectl("-n", namespace.name, *command).strip()


def pod(namespace: Namespace, account: str, name: str) -> dict[str, Any]:
    """With a token as the platform's pods have it."""
    source = {"serviceAccountToken": {"audience": "idi", "expirationSeconds": 600, "path": "token"}}
    mounted = container(
        "main", namespace.tool, "serve", f":{PORT}", volumeMounts=[{"name": "token", "mountPath": "/token"}]
    )
    volume = {"name": "token", "projected": {"sources": [source]}}
    namespace.pod(
        name,
        serviceAccountName=account,
        automountServiceAccountToken=False,
        containers=[mounted],
        volumes=[volume],
    )
    return dict(namespace.await_running(name))


async def test_a_pod_is_known_by_its_token_until_it_is_gone(
    client: Kubernetes, reviews: TokenReviews, namespace: Namespace
) -> None:
    account(namespace, "idi-jede")
    made = await asyncio.to_thread(pod, namespace, "idi-jede", "jede-1")
    held = namespace.run("jede-1", "get", f"http://127.0.0.1:{PORT}/file?path=/token/token")
    assert await reviews.who(held) == Workload("jede", "jede-1", made["metadata"]["uid"])
    assert await reviews.verify(held) == "jede-1"
    assert reviews.asked == 1
    namespace.kube.api.delete(namespace.path("pods/jede-1"), at_once=True)
    await asyncio.to_thread(namespace.await_gone, "jede-1")
    async with asyncio.timeout(FORGOTTEN_S):
        while await TokenReviews(client, namespace.name).who(held) is not None:  # noqa: ASYNC110
            await asyncio.sleep(1)
    # A later one of the same name is another one.
    await asyncio.to_thread(pod, namespace, "idi-jede", "jede-1")
    assert await TokenReviews(client, namespace.name).who(held) is None


async def test_a_person_is_known_by_the_role(reviews: TokenReviews, namespace: Namespace) -> None:
    account(namespace, "role.deployer")
    held = token(namespace, "role.deployer")
    assert await reviews.who(held) == Role("deployer")
    assert await reviews.verify(held) is None


async def test_who_is_nobody_here_is_refused(
    client: Kubernetes, reviews: TokenReviews, namespace: Namespace, kube: Client, tool: str
) -> None:
    for name in ("idi-jede", "role.deployer", "jede"):
        account(namespace, name)
    assert await reviews.who(token(namespace, "jede")) is None
    assert await reviews.who(token(namespace, "role.deployer", audience="other")) is None
    server = namespace.kube.kubectl("-n", namespace.name, "create", "token", "role.deployer").strip()
    assert await reviews.who(server) is None
    # Made by hand, bound to no pod.
    assert await reviews.who(token(namespace, "idi-jede")) is None
    for nonsense in ("", "nonsense", "a.b.c", "x" * 20_000, "tökèn"):
        assert await reviews.who(nonsense) is None
    other = Namespace.made(kube, tool, "other")
    try:
        account(other, "role.deployer")
        theirs = token(other, "role.deployer")
        assert await reviews.who(theirs) is None
        assert await TokenReviews(client, other.name).who(theirs) == Role("deployer")
    finally:
        other.remove()


async def test_a_token_ends_when_it_says_and_no_one_else_can_make_one(
    own: Cluster, client: Kubernetes, reviews: TokenReviews, namespace: Namespace
) -> None:
    """Signed with the cluster's own key, since none that it gives lives less than ten minutes."""
    account(namespace, "role.deployer")
    [_, body, _] = token(namespace, "role.deployer").split(".")
    claims = json.loads(_decoded(body))
    key = RSAKey.import_key((own.layout.keys / "sa.key").read_text())

    def signed(left_s: float, by: RSAKey) -> str:
        now = int(time.time())
        return jwt.encode(
            {"alg": "RS256"}, claims | {"iat": now - 60, "nbf": now - 60, "exp": int(now + left_s)}, by
        )

    assert await reviews.who(signed(60, key)) == Role("deployer")
    # The cluster allows a minute for clocks that differ.
    assert await reviews.who(signed(-90, key)) is None
    assert await reviews.who(signed(60, RSAKey.generate_key(2048))) is None
    short = signed(3, key)
    assert await reviews.who(short) == Role("deployer")
    await asyncio.sleep(4)
    asked = reviews.asked
    await reviews.who(short)
    assert reviews.asked == asked + 1


def _decoded(body: str) -> bytes:
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))


async def test_one_question_serves_all_who_ask_at_once(reviews: TokenReviews, namespace: Namespace) -> None:
    account(namespace, "role.viewer")
    held = token(namespace, "role.viewer")
    found = await asyncio.gather(*(reviews.who(held) for _ in range(50)))
    assert found == [Role("viewer")] * 50
    assert reviews.asked == 1
    assert await asyncio.gather(*(reviews.who("nonsense") for _ in range(50))) == [None] * 50
    assert reviews.asked == 2
    assert not reviews._flights


async def test_a_cluster_that_does_not_answer_refuses_nobody(
    kube: Client, own: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    account(namespace, "role.viewer")
    held = token(namespace, "role.viewer")
    async with gated(access(kube.kubeconfig, tmp_path)) as (through, gate), Kubernetes(through) as client:
        reviews = TokenReviews(client, namespace.name)
        gate.shut()
        with pytest.raises(PartError) as failure:
            await reviews.who(held)
        assert failure.value.retryable
        gate.open()
        assert await reviews.who(held) == Role("viewer")
        # What was found good is so without it.
        gate.shut()
        assert await reviews.who(held) == Role("viewer")
