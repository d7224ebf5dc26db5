"""Another recovery key, and another credential of control's own.

Recovery: OpenBao makes the new key and waits until it has been shown it. It is on disk before that, beside the one
that still holds, so whoever comes after a crash has the one that holds, whichever that is.

Credential: the new one is kept and has been seen to work before the former is destroyed, as in a set-up.
"""

from __future__ import annotations

from collections.abc import Callable

from idi.parts.clients.openbao import Json, OpenBao, Session
from idi.parts.errors import PartError
from idi.parts.secrets.openbao import access
from idi.parts.secrets.openbao.keys import KeyFolder, Recovery
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens

STEPS = ("made", "kept", "shown", "taken")
"""Of another recovery key; a test stops after each."""

_ATTEMPT = "sys/rotate/recovery"


async def rotate_recovery(
    client: OpenBao, keys: KeyFolder, *, reached: Callable[[str], None] = lambda _step: None
) -> None:
    await settle(client, keys)
    recovery = keys.need_recovery("Another recovery key")
    token = await make_root_token(client, recovery)
    # An attempt that a crash left open would go on with what it had.
    await client.call("DELETE", f"{_ATTEMPT}/init", token=token)
    begun = await client.write(
        f"{_ATTEMPT}/init",
        {"secret_shares": 1, "secret_threshold": 1, "require_verification": True},
        token=token,
    )
    made = await _shown(client, f"{_ATTEMPT}/update", recovery, nonce_of(begun), token)
    new = Recovery(tuple(str(key) for key in made.get("keys_base64") or ()))
    if not new.keys:
        raise PartError("OpenBao made no recovery key.", "It may need more keys.", retryable=False)
    reached("made")
    keys.keep_next_recovery(new)
    reached("kept")
    await _shown(client, f"{_ATTEMPT}/verify", new, made.get("verification_nonce"), token)
    reached("shown")
    # The former key's token goes with all the others.
    await revoke_root_tokens(client, await make_root_token(client, new))
    keys.take_next_recovery()
    reached("taken")


async def settle(client: OpenBao, keys: KeyFolder) -> None:
    """After a crash there may be two: whichever makes a root token holds. OpenBao says the same of a key that does not
    hold and of a fault of its own, so neither goes before the other has been seen to hold."""
    new = keys.next_recovery()
    if new is None:
        return
    try:
        token = await make_root_token(client, new)
    except PartError as error:
        if error.retryable:
            raise
        present = keys.need_recovery("Another recovery key")
        await revoke_root_tokens(client, await make_root_token(client, present))
        keys.drop_next_recovery()
        return
    await revoke_root_tokens(client, token)
    keys.take_next_recovery()


async def _shown(client: OpenBao, path: str, recovery: Recovery, nonce: object, token: str) -> Json:
    answer: Json = {}
    for key in recovery.keys:
        answer = await client.write(path, {"key": key, "nonce": nonce}, token=token)
        answer = answer.get("data") or answer
        if answer.get("complete"):
            break
    return answer


def nonce_of(answer: Json) -> object:
    return (answer.get("data") or answer).get("nonce")


async def rotate_credential(client: OpenBao, keys: KeyFolder, session: Session) -> None:
    token = await make_root_token(client, keys.need_recovery("Another credential of control"))
    credential = await access.make_credential(client, token)
    keys.keep_control(credential)
    session.credential = credential
    await session.login()
    await access.forget_others(client, token, credential)
    await revoke_root_tokens(client, token)
