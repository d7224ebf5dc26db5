"""Another recovery key and another credential of control's own, in a real OpenBao."""

from collections.abc import Iterator

import pytest

from idi.parts.clients.openbao import OpenBao, OpenBaoRefused, Session
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from idi.parts.secrets.openbao.keys import Recovery
from idi.parts.secrets.openbao.rekey import STEPS, rotate_credential, rotate_recovery, settle
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from tests.support import openbao
from tests.support.openbao import SCOPE, Server

pytestmark = pytest.mark.requirement("S2")


class Crash(Exception):
    pass


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with openbao.server() as one:
        one.start()
        yield one


async def holds(client: OpenBao, recovery: Recovery) -> bool:
    try:
        token = await make_root_token(client, recovery)
    except PartError:
        return False
    await revoke_root_tokens(client, token)
    return True


async def test_a_new_recovery_key_holds_alone_after_a_crash_anywhere(server: Server) -> None:
    async with server.client() as client:
        await Bootstrap(client, server.keys, SCOPE).run()
        first = server.keys.need_recovery("a test")
        for step in STEPS:

            def reached(at: str, wanted: str = step) -> None:
                if at == wanted:
                    raise Crash(at)

            with pytest.raises(Crash):
                await rotate_recovery(client, server.keys, reached=reached)
            # One of the two on disk holds, and whoever comes next finds out which.
            await settle(client, server.keys)
            assert server.keys.next_recovery() is None
            assert await holds(client, server.keys.need_recovery("a test")), step
        before = server.keys.need_recovery("a test")
        assert before != first
        await rotate_recovery(client, server.keys)
        assert await holds(client, server.keys.need_recovery("a test"))
        for former in (first, before):
            assert not await holds(client, former)


async def test_a_new_credential_of_controls_and_the_former_is_destroyed(server: Server) -> None:
    async with server.client() as client:
        session = (await Bootstrap(client, server.keys, SCOPE).run()).session
        former = session.credential
        await rotate_credential(client, server.keys, session)
        assert session.credential == server.keys.control() != former
        await session.login()
        with pytest.raises(OpenBaoRefused):
            await Session(client, former).login()
        assert not (await Bootstrap(client, server.keys, SCOPE).run()).changed
