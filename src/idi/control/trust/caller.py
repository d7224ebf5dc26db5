"""Control as one that calls through the mesh, on a cluster: with a certificate of its own.

It is issued and renewed like any workload's, by the authority that control keeps, and no proxy ever has it. Whom
control calls has to show the identity that is expected of it: every certificate of the mesh comes from the same
authority, so that alone would prove nothing.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any

from idi.control.trust.own_tls import load
from idi.parts.certificates.interface import Certificate
from idi.parts.errors import PartError


class MeshContext(ssl.SSLContext):
    """For connections to one identity."""

    peer = ""


class MeshConnection(ssl.SSLObject):
    """One whose other end is who it should be, or none: nothing is written before."""

    def do_handshake(self) -> None:
        super().do_handshake()
        shown: Any = self.getpeercert() or {}
        context = self.context
        if not isinstance(context, MeshContext) or ("URI", context.peer) not in shown.get(
            "subjectAltName", ()
        ):
            raise ssl.SSLCertVerificationError(1, "the other end shows another identity")


@dataclass(slots=True)
class Caller:
    """Contexts live as long as control and take each new certificate, so that what connects again has the newest."""

    _certificate: Certificate | None = None
    _contexts: dict[str, MeshContext] = field(default_factory=dict)

    def take(self, certificate: Certificate) -> None:
        self._certificate = certificate
        for context in self._contexts.values():
            renew(context, certificate)

    def to(self, peer: str) -> ssl.SSLContext:
        """For calls of this identity. Raises `PartError` while there is no certificate."""
        if self._certificate is None:
            raise PartError("Control has no certificate yet.", "idi status says how OpenBao is.")
        if peer not in self._contexts:
            self._contexts[peer] = made(peer)
            renew(self._contexts[peer], self._certificate)
        return self._contexts[peer]


def made(peer: str) -> MeshContext:
    context = MeshContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # it is an identity that is checked, by the connection
    context.peer, context.sslobject_class = peer, MeshConnection
    return context


def renew(context: ssl.SSLContext, certificate: Certificate) -> None:
    context.load_verify_locations(cadata=certificate.roots.decode())
    load(context, certificate.chain, certificate.key)
