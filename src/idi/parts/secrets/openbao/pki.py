"""The certificate authority inside OpenBao: a root that signs one intermediate, which signs leaves.

Both keys are made inside and have no way out. Each step looks first and then makes what is missing, so
that the whole can be repeated from anywhere. The intermediate is made anew when less than a third of its
life is left; the root stays, so nobody has to trust anything new, until somebody wants another one (`reroot`).

Leaves are not stored (`no_store`): they live for hours, nothing is ever looked up by serial number, and a
store that grows with each renewal would be a leak. What revokes a leaf is its end of life, and the mesh's
own lists of who may call.
"""

from __future__ import annotations

from typing import Any

from idi.parts.clients.openbao import OpenBao, OpenBaoRefused
from idi.parts.clients.openbao_layout import LEAF_MOUNT, LEAF_ROLE, ROOT_MOUNT, Scope
from idi.parts.errors import PartError

ROOT_LIFE_H = 10 * 365 * 24
INTERMEDIATE_LIFE_H = 3 * 365 * 24
_KEY: dict[str, Any] = {"key_type": "ec", "key_bits": 256}


def role(scope: Scope) -> dict[str, Any]:
    """What a leaf may be: the identity of a workload of this environment, for client and server, no
    other name of any kind; the request's own names are ignored."""
    return {
        **_KEY,
        "allowed_uri_sans": [scope.prefix + "*"],
        "allow_any_name": False,
        "allow_localhost": False,
        "allow_ip_sans": False,
        "allow_bare_domains": False,
        "allow_subdomains": False,
        "allow_glob_domains": False,
        "allowed_domains": [],
        "allowed_other_sans": [],
        "require_cn": False,
        "use_csr_common_name": False,
        "use_csr_sans": False,
        "server_flag": True,
        "client_flag": True,
        "code_signing_flag": False,
        "email_protection_flag": False,
        "key_usage": ["DigitalSignature"],
        "basic_constraints_valid_for_non_ca": True,
        "ttl": f"{int(scope.life_s)}s",
        "max_ttl": f"{int(scope.life_s)}s",
        "not_before_duration": "30s",
        "no_store": True,
        "generate_lease": False,
    }


async def ensure_mount(
    client: OpenBao,
    token: str,
    mount: str,
    kind: str,
    *,
    life_h: int = 0,
    options: dict[str, str] | None = None,
) -> None:
    mounts = (await client.call("GET", "sys/mounts", token=token)).get("data", {})
    if f"{mount}/" in mounts:
        return
    body: dict[str, Any] = {"type": kind, "options": options or {}}
    if life_h:
        body["config"] = {"max_lease_ttl": f"{life_h}h"}
    await client.write(f"sys/mounts/{mount}", body, token=token)


async def ensure_root(client: OpenBao, token: str, scope: Scope) -> None:
    await ensure_mount(client, token, ROOT_MOUNT, "pki", life_h=ROOT_LIFE_H)
    if await authority_end(client, ROOT_MOUNT):
        return
    await client.write(
        f"{ROOT_MOUNT}/root/generate/internal", root(f"{scope.trust_domain} root", "root"), token=token
    )


def root(name: str, kept_as: str) -> dict[str, Any]:
    return {
        **_KEY,
        "common_name": name,
        "issuer_name": kept_as,
        "ttl": f"{ROOT_LIFE_H}h",
        "max_path_length": 1,
    }


async def ensure_intermediate(client: OpenBao, token: str, scope: Scope, now: float) -> None:
    await ensure_mount(client, token, LEAF_MOUNT, "pki", life_h=INTERMEDIATE_LIFE_H)
    if not intermediate_is_due(await authority_end(client, LEAF_MOUNT), now):
        return
    ours = await make_intermediate(client, token, scope, "default")
    await client.write(f"{LEAF_MOUNT}/config/issuers", {"default": ours}, token=token)


async def make_intermediate(client: OpenBao, token: str, scope: Scope, by: str) -> str:
    """A new one, signed by the root of this name; returns what it is called. It signs nothing yet."""
    name = f"{scope.trust_domain} {scope.environment}"
    made = await client.write(
        f"{LEAF_MOUNT}/intermediate/generate/internal", {**_KEY, "common_name": name}, token=token
    )
    signed = await client.write(
        f"{ROOT_MOUNT}/issuer/{by}/sign-intermediate",
        {
            "csr": made["data"]["csr"],
            "use_csr_values": False,
            "common_name": name,
            "ttl": f"{INTERMEDIATE_LIFE_H}h",
            "max_path_length": 0,
        },
        token=token,
    )
    chain = [signed["data"]["certificate"], signed["data"]["issuing_ca"]]
    placed = await client.write(
        f"{LEAF_MOUNT}/intermediate/set-signed", {"certificate": "\n".join(chain)}, token=token
    )
    # Of the two that came in, the one whose key is here is ours.
    keys: dict[str, str] = placed["data"].get("mapping") or {}
    ours = next((issuer for issuer, key in keys.items() if key), "")
    if not ours:
        raise PartError("OpenBao did not recognise its own intermediate.")
    return ours


async def ensure_role(client: OpenBao, token: str, scope: Scope) -> None:
    await client.write(f"{LEAF_MOUNT}/roles/{LEAF_ROLE}", role(scope), token=token)


def intermediate_is_due(end: float, now: float) -> bool:
    return end - now < INTERMEDIATE_LIFE_H * 3600 / 3


async def authority_end(client: OpenBao, mount: str) -> float:
    """When a mount's authority ends, 0 where it has none. Needs no token."""
    return (await authority_life(client, mount))[1]


async def authority_life(client: OpenBao, mount: str) -> tuple[float, float]:
    """From when to when; zeros where there is none."""
    try:
        found = await client.read(f"{mount}/cert/ca")
    except OpenBaoRefused:  # no such mount, or no issuer in it
        return 0.0, 0.0
    pem = ((found or {}).get("data") or {}).get("certificate", "")
    if not pem:
        return 0.0, 0.0
    from cryptography import x509

    authority = x509.load_pem_x509_certificate(str(pem).encode())
    return authority.not_valid_before_utc.timestamp(), authority.not_valid_after_utc.timestamp()
