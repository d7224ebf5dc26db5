"""The control process's own credential: sign leaves of this environment, keep and read secrets, nothing else.

Its tokens are short batch tokens: they cannot make other tokens, are not stored, and end by themselves.
The default policy is left out, so that not even a token's own housekeeping is allowed.
"""

from __future__ import annotations

from typing import Any

from idi.parts.clients.openbao import AppRole, OpenBao
from idi.parts.clients.openbao_layout import CONTROL_POLICY, CONTROL_ROLE, KV_MOUNT, SIGN_PATH

POLICY = f"""\
path "{SIGN_PATH}" {{ capabilities = ["update"] }}
path "{KV_MOUNT}/data/*" {{ capabilities = ["create", "update", "read"] }}
path "{KV_MOUNT}/metadata/*" {{ capabilities = ["read"] }}
"""

APPROLE: dict[str, Any] = {
    "token_type": "batch",
    "token_policies": [CONTROL_POLICY],
    "token_no_default_policy": True,
    "token_ttl": "15m",
    "token_max_ttl": "15m",
    "bind_secret_id": True,
    "secret_id_num_uses": 0,
    "secret_id_ttl": 0,
}

_ROLE = f"auth/approle/role/{CONTROL_ROLE}"


async def ensure_access(client: OpenBao, token: str) -> None:
    mounts = (await client.call("GET", "sys/auth", token=token)).get("data", {})
    if "approle/" not in mounts:
        await client.write("sys/auth/approle", {"type": "approle"}, token=token)
    await client.call("PUT", f"sys/policies/acl/{CONTROL_POLICY}", {"policy": POLICY}, token=token)
    await client.write(_ROLE, APPROLE, token=token)


async def make_credential(client: OpenBao, token: str) -> AppRole:
    """A new secret; those made before it are destroyed once the new one is kept (`forget_others`)."""
    role = await client.call("GET", f"{_ROLE}/role-id", token=token)
    secret = await client.write(f"{_ROLE}/secret-id", token=token)
    return AppRole(str(role["data"]["role_id"]), str(secret["data"]["secret_id"]))


async def forget_others(client: OpenBao, token: str, kept: AppRole) -> None:
    own = await client.write(f"{_ROLE}/secret-id/lookup", {"secret_id": kept.secret_id}, token=token)
    for accessor in await client.listing(f"{_ROLE}/secret-id", token=token):
        if accessor != own["data"]["secret_id_accessor"]:
            await client.write(
                f"{_ROLE}/secret-id-accessor/destroy", {"secret_id_accessor": accessor}, token=token
            )
