"""The seal key of a real OpenBao is rotated: what opens the store afterwards, and after a crash anywhere in it."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from idi.parts.clients.openbao import Session, State
from idi.parts.errors import PartError
from idi.parts.secrets.openbao import server as serving
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from idi.parts.secrets.openbao.keys import PREVIOUS, key_id
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from idi.parts.secrets.openbao.seal import STEPS, SealRotation
from idi.parts.secrets.openbao.server import put_copy_back, wait_for
from idi.parts.secrets.openbao.store import OpenBaoSecrets
from tests.support import openbao
from tests.support.openbao import SCOPE, Server, opens
from tests.support.scale import scale

pytestmark = pytest.mark.requirement("S2")


class Crash(Exception):
    pass


@pytest.fixture
def server() -> Iterator[Server]:
    with openbao.server() as one:
        yield one


async def filled(server: Server) -> None:
    server.start()
    async with server.client() as client:
        ready = await Bootstrap(client, server.keys, SCOPE).run()
        await OpenBaoSecrets(ready.session).put("jede/key", b"kept", 0)


async def rotate(server: Server, crash_after: str = "") -> Path | None:
    def reached(step: str) -> None:
        if step == crash_after:
            raise Crash(step)

    async with server.client() as client:
        rotation = SealRotation(client, server.places, server.restart, reached=reached)
        rotation.make()
        await rotation.rewrap()
        await rotation.prove()
        return rotation.take()


async def assert_whole(server: Server) -> None:
    """It opens, control's credential is good, a secret is there, the recovery key belongs to it."""
    async with server.client() as client:
        await wait_for(client, {State.ACTIVE}, 10)
        credential, recovery = server.keys.control(), server.keys.recovery()
        assert credential is not None
        assert recovery is not None
        assert await OpenBaoSecrets(Session(client, credential)).get("jede/key", 1) == b"kept"
        # Nor has an earlier rotation left a root token.
        assert await revoke_root_tokens(client, await make_root_token(client, recovery)) == 0


async def state_with(server: Server, key: bytes) -> State:
    """How the store takes this seal key, given alone and under its own name."""
    right = server.keys.seal_key.read_bytes()
    server.stop()
    try:
        server.keys.seal_key.write_bytes(key)
        server.start(alone=True)
        async with server.client() as client:
            return await opens(client)
    finally:
        server.stop()
        server.keys.seal_key.write_bytes(right)


def within(file: Path, text: str) -> int:
    return file.read_bytes().count(text.encode())


async def test_the_next_key_opens_the_store_and_the_former_does_not(server: Server) -> None:
    await filled(server)
    former = server.keys.seal_key.read_bytes()
    name = key_id(server.keys.seal_key)
    kept = await rotate(server)
    assert kept is not None
    await assert_whole(server)
    assert server.keys.seal_key.read_bytes() != former
    assert kept.read_bytes() == former
    assert kept.stat().st_mode & 0o777 == 0o600
    assert not server.keys.next_seal_key.exists()
    assert not server.places.before.exists()
    assert within(server.places.storage / "vault.db", name) == 0
    server.stop()
    server.start()
    await assert_whole(server)
    async with server.client() as client:
        assert not (await Bootstrap(client, server.keys, SCOPE).run()).changed
        credential = server.keys.control()
        assert credential is not None
        # The data key is another one.
        recovery = server.keys.recovery()
        assert recovery is not None
        token = await make_root_token(client, recovery)
        assert (await client.call("GET", "sys/key-status", token=token))["data"]["term"] == 2
        await revoke_root_tokens(client, token)
    assert await state_with(server, former) is State.SEALED
    # Under the name of the next one, as somebody would try it.
    assert await state_with(server, server.keys.seal_key.read_bytes()) is State.ACTIVE


def give(server: Server, key: bytes, previous: bytes = b"") -> None:
    """As a Secret of the user's is mounted: beside the key folder, which then has none of its own."""
    folder = server.base / "given"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "seal.key").write_bytes(key)
    if previous:
        (folder / PREVIOUS).write_bytes(previous)
    server.places = replace(server.places, seal=folder / "seal.key")
    server.keys = server.places.key_folder


def keys_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("seal*"))


@pytest.mark.requirement("K1")
async def test_a_key_that_is_given_is_used_and_never_copied(server: Server) -> None:
    key = b"k" * 32
    give(server, key)
    await filled(server)
    assert keys_in(server.places.keys) == []
    await server.restart()
    await assert_whole(server)
    with pytest.raises(PartError, match="is given"):
        await rotate(server)
    # Another one, and nothing else: the store stays closed, and nothing is made in its place.
    server.stop()
    give(server, b"x" * 32)
    server.start()
    async with server.client() as client:
        assert await opens(client) is State.SEALED
    server.stop()
    give(server, key, previous=b"x" * 32)
    assert server.keys.seal_key.name == PREVIOUS
    server.start()
    async with server.client() as client:
        assert await opens(client) is State.ACTIVE
    server.stop()
    (server.base / "given" / "seal.key").write_bytes(b"short")
    with pytest.raises(PartError, match="not 32 bytes"):
        server.start()
    shutil.rmtree(server.base / "given")
    with pytest.raises(PartError, match=r"not there|is gone"):
        server.start()
    assert keys_in(server.places.keys) == []


@pytest.mark.requirement("K1")
async def test_a_key_of_its_own_gives_way_to_one_that_is_given(server: Server) -> None:
    await filled(server)
    own = server.keys.seal_key.read_bytes()
    server.stop()
    give(server, b"k" * 32)
    server.start()
    await assert_whole(server)
    assert keys_in(server.places.keys) == ["seal.key"], "it is not proven yet that the given one is enough"
    assert await rotate(server) is None
    assert keys_in(server.places.keys) == []
    assert not server.places.before.exists()
    await server.restart()
    await assert_whole(server)
    assert await state_with(server, own) is State.SEALED


@pytest.mark.requirement("K1")
async def test_a_given_key_gives_way_to_the_next_that_is_given(server: Server) -> None:
    former = b"k" * 32
    give(server, former)
    await filled(server)
    server.stop()
    give(server, b"n" * 32, previous=former)
    server.start()
    await assert_whole(server)
    assert await rotate(server) is None
    server.stop()
    give(server, b"n" * 32)
    server.start()
    await assert_whole(server)
    assert await state_with(server, former) is State.SEALED


async def test_the_same_key_given_and_in_the_folder_is_in_the_folder_no_more(server: Server) -> None:
    await filled(server)
    own = server.keys.seal_key.read_bytes()
    server.stop()
    give(server, own)
    server.start()
    await assert_whole(server)
    assert keys_in(server.places.keys) == []


async def test_after_a_crash_at_each_step_it_opens_and_is_completed(
    server: Server, seeded: random.Random
) -> None:
    await filled(server)
    former = server.keys.seal_key.read_bytes()
    for step in STEPS:
        for dies in (False, True) if scale(0, 1) else (seeded.random() < 0.6,):
            with pytest.raises(Crash):
                await rotate(server, step)
            if dies:
                server.stop(kill=True)
                server.start()
            await wait_until_opened(server)
            await assert_secret(server)
    await rotate(server)
    await assert_whole(server)
    assert len({path.read_bytes() for path in server.keys.former_seal_keys()}) == len(
        server.keys.former_seal_keys()
    )
    assert former in {path.read_bytes() for path in server.keys.former_seal_keys()}
    assert await state_with(server, former) is State.SEALED


async def wait_until_opened(server: Server) -> None:
    async with server.client() as client:
        await wait_for(client, {State.ACTIVE}, 10)


async def assert_secret(server: Server) -> None:
    async with server.client() as client:
        credential = server.keys.control()
        assert credential is not None
        assert await OpenBaoSecrets(Session(client, credential)).get("jede/key", 1) == b"kept"


async def test_a_store_that_was_closed_under_the_first_name_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an earlier version closed it; it is rotated while that server still runs."""

    def earlier(_places: object, _keys: object, *, alone: bool) -> str:
        return f'  current_key_id = "{serving.FIRST_NAME}"\n  current_key = "file://{server.keys.seal_key}"'

    monkeypatch.setattr(serving, "seal", earlier)
    await filled(server)
    monkeypatch.undo()
    await rotate(server)
    await assert_whole(server)


async def test_without_the_recovery_key_it_is_refused_and_nothing_is_begun(server: Server) -> None:
    await filled(server)
    server.keys.recovery_path.rename(server.base / "in-the-safe")
    async with server.client() as client:
        with pytest.raises(PartError, match="needs the recovery key"):
            SealRotation(client, server.places, server.restart).check()
    assert not server.keys.next_seal_key.exists()


async def test_a_store_that_does_not_open_any_more_is_put_back(server: Server) -> None:
    """OpenBao died while it stored its new root key."""
    await filled(server)
    with pytest.raises(Crash):
        await rotate(server, "opened with both")
    server.stop(kill=True)
    shutil.rmtree(server.places.storage)
    with openbao.server() as other:
        await filled(other)
        other.stop()
        shutil.copytree(other.places.storage, server.places.storage)
    server.start()
    async with server.client() as client:
        assert (await wait_for(client, {State.ACTIVE, State.SEALED})).state is State.SEALED
    server.stop()
    put_copy_back(server.places)
    server.start()
    await assert_whole(server)
    await rotate(server)
    await assert_whole(server)
