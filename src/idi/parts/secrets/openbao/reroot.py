"""Another root authority for a platform that is in use, and an intermediate below it.

For a while there are two roots. Everybody trusts both before the new one signs anything that somebody shows, and
every leaf of the former is replaced before that one goes. Who trusts what is not known here: whoever calls these
steps waits in between. What is under way can be read off the store alone, by how many roots there are, so a
rotation that was interrupted is completed by the next.

The former root and its intermediates go with their keys: nothing can be signed with them any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from idi.parts.clients.openbao import OpenBao
from idi.parts.clients.openbao_layout import LEAF_MOUNT, ROOT_MOUNT, Scope
from idi.parts.errors import PartError
from idi.parts.secrets.openbao import pki
from idi.parts.secrets.openbao.keys import KeyFolder
from idi.parts.secrets.openbao.root import make_root_token, revoke_root_tokens


@dataclass(frozen=True, slots=True)
class Issuer:
    """`key` is empty where only the certificate is kept; `number` counts roots, the first is 1."""

    id: str
    number: int
    key: str
    certificate: x509.Certificate


class Rerooting:
    """Its three steps in their order; each may be repeated. The root token is borrowed for each of them."""

    def __init__(self, client: OpenBao, keys: KeyFolder, scope: Scope) -> None:
        self._client = client
        self._keys = keys
        self._scope = scope

    def check(self) -> None:
        """Raises where it cannot be begun."""
        self._keys.need_recovery("A new root of certificates")

    async def add(self) -> None:
        """There is a second root, and nobody uses it."""
        token = await self._borrow()
        roots = await issuers(self._client, ROOT_MOUNT, token)
        if len(roots) < 2:
            number = 1 + max((root.number for root in roots), default=0)
            await self._client.write(
                f"{ROOT_MOUNT}/root/generate/internal",
                pki.root(f"{self._scope.trust_domain} root {number}", f"root-{number}"),
                token=token,
            )
        await revoke_root_tokens(self._client, token)

    async def switch(self) -> None:
        """The newest root's intermediate signs every leaf from now on. Call it when everybody trusts that root."""
        token = await self._borrow()
        client = self._client
        root = await self._newest(token)
        below = await self._below(root, token)
        if below is None:
            made = await pki.make_intermediate(client, token, self._scope, root.id)
        else:
            made = below.id
        await client.write(f"{ROOT_MOUNT}/config/issuers", {"default": root.id}, token=token)
        await client.write(f"{LEAF_MOUNT}/config/issuers", {"default": made}, token=token)
        await revoke_root_tokens(client, token)

    async def forget(self) -> None:
        """The former root is gone. Call it when nobody shows a leaf of it any more."""
        token = await self._borrow()
        root = await self._newest(token)
        below = await self._below(root, token)
        if below is None:
            raise PartError("The new root has signed no intermediate yet.")
        here = {root.certificate, below.certificate}
        for mount in (LEAF_MOUNT, ROOT_MOUNT):
            for issuer in await issuers(self._client, mount, token):
                if issuer.certificate not in here:
                    await self._client.call("DELETE", f"{mount}/issuer/{issuer.id}", token=token)
                    if issuer.key:
                        await self._client.call("DELETE", f"{mount}/key/{issuer.key}", token=token)
        await revoke_root_tokens(self._client, token)

    async def _borrow(self) -> str:
        return await make_root_token(self._client, self._keys.need_recovery("A new root of certificates"))

    async def _newest(self, token: str) -> Issuer:
        found = await issuers(self._client, ROOT_MOUNT, token)
        if not found:
            raise PartError("OpenBao has no root certificate.", "Start the platform again.", retryable=False)
        return found[-1]

    async def _below(self, root: Issuer, token: str) -> Issuer | None:
        """The newest intermediate that this root signed and whose key is here."""
        signed = [
            issuer
            for issuer in await issuers(self._client, LEAF_MOUNT, token)
            if issuer.key and is_signed_by(issuer.certificate, root.certificate)
        ]
        return signed[-1] if signed else None


async def issuers(client: OpenBao, mount: str, token: str) -> list[Issuer]:
    """Oldest first."""
    found = []
    for name in await client.listing(f"{mount}/issuers", token=token):
        data = (await client.call("GET", f"{mount}/issuer/{name}", token=token))["data"]
        certificate = x509.load_pem_x509_certificate(str(data["certificate"]).encode())
        number = str(data.get("issuer_name") or "").rpartition("-")[2]
        found.append(
            Issuer(name, int(number) if number.isdecimal() else 1, str(data.get("key_id") or ""), certificate)
        )
    return sorted(found, key=lambda each: (each.number, each.certificate.not_valid_before_utc))


def is_signed_by(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
