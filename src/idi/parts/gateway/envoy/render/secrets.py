"""A workload's certificate, the roots that it trusts, and who may come to a port of it, for SDS."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2

from idi.parts.gateway.envoy.render.tls import IDENTITY, ROOTS, caller_names
from idi.parts.gateway.envoy.resources import Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource
from idi.parts.gateway.interface import Identity


def secret_resources(identity: Identity) -> tuple[Resource, ...]:
    certificate = common_pb2.TlsCertificate(
        certificate_chain=base_pb2.DataSource(inline_bytes=identity.chain),
        private_key=base_pb2.DataSource(inline_bytes=identity.key),
    )
    roots = common_pb2.CertificateValidationContext(
        trusted_ca=base_pb2.DataSource(inline_bytes=identity.roots)
    )
    return (
        encode_resource(Kind.SECRET, IDENTITY, secret_pb2.Secret(name=IDENTITY, tls_certificate=certificate)),
        encode_resource(Kind.SECRET, ROOTS, secret_pb2.Secret(name=ROOTS, validation_context=roots)),
    )


def callers_resource(name: str, identity: Identity, allowed: tuple[str, ...], trust_domain: str) -> Resource:
    """Whom a port takes: certificates of the same roots with one of these identities."""
    context = common_pb2.CertificateValidationContext(
        trusted_ca=base_pb2.DataSource(inline_bytes=identity.roots),
        match_typed_subject_alt_names=caller_names(allowed, trust_domain),
    )
    return encode_resource(Kind.SECRET, name, secret_pb2.Secret(name=name, validation_context=context))
