"""What every store of secrets must do: OpenBao from its wheel, and the simulator."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from idi.parts.clients.openbao import Session
from idi.parts.errors import PartError
from idi.parts.secrets.interface import LARGEST_BYTES, Overtaken, SecretStore
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from idi.parts.secrets.openbao.store import OpenBaoSecrets
from idi.parts.secrets.simulator import SimulatedSecrets
from tests.support import openbao
from tests.support.openbao import SCOPE, Server

pytestmark = pytest.mark.requirement("S1", "S2")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with openbao.server() as one:
        one.start()
        yield one


@pytest.fixture(params=["openbao", "simulator"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[SecretStore]:
    if request.param == "simulator":
        yield SimulatedSecrets()
        return
    one: Server = request.getfixturevalue("server")
    async with one.client() as client:
        ready = await Bootstrap(client, one.keys, SCOPE).run()
        yield OpenBaoSecrets(Session(client, ready.credential))


@pytest.fixture
def path() -> str:
    return f"jede/{os.urandom(8).hex()}"


async def test_what_was_never_set_is_version_0(store: SecretStore, path: str) -> None:
    assert await store.version(path) == 0
    assert await store.get(path, 1) is None


@pytest.mark.parametrize("value", [b"x", b"\0\xff\n", "gehäim".encode(), bytes(LARGEST_BYTES)], ids=len)
async def test_any_bytes_come_back_as_they_were(store: SecretStore, path: str, value: bytes) -> None:
    assert await store.put(path, value, 0) == 1
    assert await store.get(path, 1) == value


async def test_each_version_stays_what_it_was(store: SecretStore, path: str) -> None:
    for number in range(1, 4):
        assert await store.put(path, f"value {number}".encode(), number - 1) == number
    assert await store.version(path) == 3
    assert [await store.get(path, number) for number in (1, 2, 3)] == [b"value 1", b"value 2", b"value 3"]
    assert await store.get(path, 4) is None


async def test_of_two_writers_one_is_told(store: SecretStore, path: str) -> None:
    await store.put(path, b"first", 0)
    for seen in (0, 2):
        with pytest.raises(Overtaken, match="Somebody else"):
            await store.put(path, b"lost?", seen)
    assert await store.get(path, 1) == b"first"
    assert await store.version(path) == 1


async def test_paths_that_begin_with_each_other(store: SecretStore, path: str) -> None:
    await store.put(path, b"short", 0)
    await store.put(f"{path}/more", b"long", 0)
    assert (await store.get(path, 1), await store.get(f"{path}/more", 1)) == (b"short", b"long")


async def test_one_that_does_not_answer_is_a_failure_that_may_pass(store: SecretStore, path: str) -> None:
    if isinstance(store, SimulatedSecrets):
        store.down = "It does not answer."
    else:
        assert isinstance(store, OpenBaoSecrets)
        await store._session.client.__aexit__(None, None, None)
        store._session.client.address = "unix:/nowhere"
        await store._session.client.__aenter__()
    for call in (store.version(path), store.put(path, b"geheim", 0), store.get(path, 1)):
        with pytest.raises(PartError) as caught:
            await call
        assert caught.value.retryable
        assert "geheim" not in repr(caught.value)
