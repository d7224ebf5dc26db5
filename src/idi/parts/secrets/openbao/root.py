"""The root token: borrowed for as long as a set-up takes, in memory only.

The first one comes with the initialisation. Any later one is made with the recovery key, so that losing
it (a crash in the middle of a set-up) costs nothing. Giving it back revokes every root token that the
store knows, ours last, and then shows that ours is dead: one that an earlier, interrupted set-up left
behind does not survive the next one.
"""

from __future__ import annotations

import base64
from itertools import cycle

from idi.parts.clients.openbao import Json, OpenBao, OpenBaoRefused
from idi.parts.errors import Bug, PartError
from idi.parts.secrets.openbao.keys import Recovery


async def make_root_token(client: OpenBao, recovery: Recovery) -> str:
    """A new root token, with the recovery key."""
    # An attempt that a crash left open would take our key for its own one-time pad.
    await client.call("DELETE", "sys/generate-root/attempt")
    attempt = await client.write("sys/generate-root/attempt")
    one_time = str(attempt.get("otp", ""))
    progress: Json = attempt
    for key in recovery.keys:
        try:
            progress = await client.write(
                "sys/generate-root/update", {"key": key, "nonce": attempt.get("nonce", "")}
            )
        except OpenBaoRefused as error:
            raise PartError(
                "The recovery key does not belong to this store.",
                "Put the right recovery.json back from your copy.",
                retryable=False,
            ) from error
        if progress.get("complete"):
            break
    encoded = str(progress.get("encoded_token") or progress.get("encoded_root_token") or "")
    if not one_time or not encoded:
        raise PartError(
            "OpenBao made no root token from the recovery key.", "It may need more keys.", retryable=False
        )
    padded = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    return bytes(a ^ b for a, b in zip(padded, cycle(one_time.encode()), strict=False)).decode()


async def revoke_root_tokens(client: OpenBao, token: str) -> int:
    """Revoke all of them, `token` last, and prove it. Returns how many others there were."""
    others = 0
    own = (await client.call("GET", "auth/token/lookup-self", token=token))["data"]["accessor"]
    for accessor in await client.listing("auth/token/accessors", token=token):
        if accessor == own:
            continue
        try:
            found = await client.write("auth/token/lookup-accessor", {"accessor": accessor}, token=token)
        except OpenBaoRefused:
            continue  # it expired between the list and the look
        if "root" in found["data"].get("policies", []):
            await client.write("auth/token/revoke-accessor", {"accessor": accessor}, token=token)
            others += 1
    await client.write("auth/token/revoke-self", token=token)
    try:
        await client.call("GET", "auth/token/lookup-self", token=token)
    except OpenBaoRefused as error:
        if error.status == 403:
            return others
        raise
    raise Bug("OpenBao still accepts the root token after its revocation.")
