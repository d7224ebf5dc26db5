"""A workload's certificate and the roots that it trusts, for SDS."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2

from idi.parts.gateway.envoy.render.tls import IDENTITY, ROOTS
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
