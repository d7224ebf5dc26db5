"""Another root in a real OpenBao: what is there after each step, repeated after a crash, and at the end."""

from collections.abc import Iterator

import pytest
from cryptography import x509

from idi.parts.clients.openbao import OpenBao
from idi.parts.clients.openbao_layout import LEAF_MOUNT, ROOT_MOUNT
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.bootstrap import Bootstrap
from idi.parts.secrets.openbao.reroot import Rerooting, issuers
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens
from tests.support import openbao
from tests.support.openbao import SCOPE, Server

pytestmark = pytest.mark.requirement("S4")
JEDE = "spiffe://shop.idi/dev/jede"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with openbao.server() as one:
        one.start()
        yield one


async def counted(client: OpenBao, server: Server) -> dict[str, tuple[int, int]]:
    """Issuers and keys of both mounts."""
    token = await make_root_token(client, server.keys.need_recovery("a test"))
    found = {}
    for mount in (ROOT_MOUNT, LEAF_MOUNT):
        keys = await client.listing(f"{mount}/keys", token=token)
        found[mount] = (len(await issuers(client, mount, token)), len(keys))
    assert await revoke_root_tokens(client, token) == 0
    return found


async def test_each_step_can_be_repeated_and_nothing_of_the_former_is_left(server: Server) -> None:
    async with server.authority() as authority, server.client() as client:
        first = await authority.issue(JEDE, 60)
        rerooting = Rerooting(client, server.keys, SCOPE)
        for _ in range(2):
            await rerooting.add()
        assert len(x509.load_pem_x509_certificates(await authority.roots())) == 2
        # Nothing is signed by it yet.
        assert (await authority.issue(JEDE, 60)).chain.split(b"-----BEGIN")[2] == first.chain.split(
            b"-----BEGIN"
        )[2]
        for _ in range(2):
            await rerooting.switch()
        assert await counted(client, server) == {ROOT_MOUNT: (2, 2), LEAF_MOUNT: (4, 2)}
        for _ in range(2):
            await rerooting.forget()
        assert await counted(client, server) == {ROOT_MOUNT: (1, 1), LEAF_MOUNT: (2, 1)}
        [root] = x509.load_pem_x509_certificates(await authority.roots())
        after = await authority.issue(JEDE, 60)
        x509.load_pem_x509_certificates(after.chain)[1].verify_directly_issued_by(root)
        assert after.roots != first.roots
        # The set-up takes it as it is.
        assert not (await Bootstrap(client, server.keys, SCOPE).run()).changed


async def test_without_the_recovery_key_nothing_is_begun(server: Server) -> None:
    aside = server.base / "in-the-safe"
    server.keys.recovery_path.rename(aside)
    try:
        async with server.client() as client:
            with pytest.raises(PartError, match="needs the recovery key"):
                Rerooting(client, server.keys, SCOPE).check()
    finally:
        aside.rename(server.keys.recovery_path)
