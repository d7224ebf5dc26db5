"""Mutual TLS between proxies: certificates by SDS, identities checked exactly.

TLS 1.3 only. A caller accepts one identity per service, the SPIFFE id in the certificate's URI name, so an
address that another module took over is refused. A callee accepts any certificate of the platform's trust
domain here and decides by policy (RBAC) who may do what; where there are no requests to judge by (tcp), it accepts its
declared callers alone. A policy would come too late there: it waits for the caller's first byte, and a server that
speaks first would have told its greeting to anybody.
"""

from __future__ import annotations

import posixpath

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from idi.declaration.types import TlsFiles
from idi.parts.gateway.envoy.render.proto import ads, flag, is_ip, packed
from idi.parts.gateway.envoy.resources import Key, Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource

IDENTITY = "identity"
ROOTS = "roots"
NEEDS: tuple[Key, ...] = ((Kind.SECRET, IDENTITY), (Kind.SECRET, ROOTS))

BETWEEN_PROXIES = "h2"
"""HTTP/2 between proxies: one warm connection per pair, and its GOAWAY ends a connection without the race of
HTTP/1.1, where a request meets a keep-alive connection that the other side is just closing."""


def upstream(identity: str, alpn: str = "") -> base_pb2.TransportSocket:
    """To a service that must prove this SPIFFE identity."""
    return _socket(
        tls_pb2.UpstreamTlsContext(
            common_tls_context=_common([string_pb2.StringMatcher(exact=identity)], alpn)
        )
    )


def downstream(trust_domain: str, alpn: str = "") -> base_pb2.TransportSocket:
    """From any workload of the trust domain; without a certificate there is no connection."""
    return _downstream(_common([string_pb2.StringMatcher(prefix=domain(trust_domain))], alpn))


def downstream_from(callers: str) -> base_pb2.TransportSocket:
    """From those whom the secret of this name lets in."""
    return _downstream(
        tls_pb2.CommonTlsContext(
            tls_params=_tls_1_3(),
            tls_certificate_sds_secret_configs=[_secret(IDENTITY)],
            validation_context_sds_secret_config=_secret(callers),
        )
    )


def caller_names(callers: tuple[str, ...], trust_domain: str) -> list[common_pb2.SubjectAltNameMatcher]:
    """These identities and nobody else. With none, nobody: the domain itself is no workload's name."""
    named = sorted(callers) or [domain(trust_domain)]
    return _names([string_pb2.StringMatcher(exact=one) for one in named])


def domain(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}/"


def _downstream(common: tls_pb2.CommonTlsContext) -> base_pb2.TransportSocket:
    return _socket(
        tls_pb2.DownstreamTlsContext(
            common_tls_context=common,
            require_client_certificate=flag(True),
            # Resumption would skip the check against roots that have been rotated meanwhile.
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
        )
    )


EDGE = "edge"


def edge_files(files: TlsFiles) -> Resource:
    """The gateway's own certificate: names of files, no content. Envoy reads them again when something is
    renamed into their folder, so a renewal needs nothing from us."""
    certificate = common_pb2.TlsCertificate(
        certificate_chain=base_pb2.DataSource(filename=files.certificate),
        private_key=base_pb2.DataSource(filename=files.key),
        watched_directory=base_pb2.WatchedDirectory(path=posixpath.dirname(files.certificate) or "."),
    )
    return encode_resource(Kind.SECRET, EDGE, secret_pb2.Secret(name=EDGE, tls_certificate=certificate))


def edge() -> base_pb2.TransportSocket:
    """The gateway's own listener, where a certificate is given. Clients out there may still need TLS 1.2."""
    common = tls_pb2.CommonTlsContext(
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
            tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
        ),
        tls_certificate_sds_secret_configs=[_secret(EDGE)],
        alpn_protocols=["h2", "http/1.1"],
    )
    return _socket(
        tls_pb2.DownstreamTlsContext(common_tls_context=common, require_client_certificate=flag(False))
    )


def public(host: str) -> base_pb2.TransportSocket:
    """To a server of the public web (an issuer's keys), by the system's roots and its name."""
    context = common_pb2.CertificateValidationContext(
        system_root_certs=common_pb2.CertificateValidationContext.SystemRootCerts(),
        match_typed_subject_alt_names=[_host(host)],
    )
    common = tls_pb2.CommonTlsContext(validation_context=context)
    return _socket(tls_pb2.UpstreamTlsContext(common_tls_context=common, sni=host))


ISSUER_ROOTS = "issuer.roots"


def named(host: str, roots: str) -> base_pb2.TransportSocket:
    """To a server of the platform that is no proxy: it proves this name by the roots of this secret."""
    return named_by(host, _secret(roots))


def named_by(host: str, roots: secret_pb2.SdsSecretConfig, alpn: str = "") -> base_pb2.TransportSocket:
    combined = tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=[_host(host)]
        ),
        validation_context_sds_secret_config=roots,
    )
    common = tls_pb2.CommonTlsContext(
        tls_params=_tls_1_3(),
        combined_validation_context=combined,
        alpn_protocols=[alpn] if alpn else [],
    )
    return _socket(tls_pb2.UpstreamTlsContext(common_tls_context=common, sni="" if is_ip(host) else host))


def roots_file(name: str, path: str) -> Resource:
    """Roots in a file where the proxy runs, read again when something is renamed into its folder."""
    return encode_resource(Kind.SECRET, name, roots_secret(name, path))


def roots_secret(name: str, path: str) -> secret_pb2.Secret:
    context = common_pb2.CertificateValidationContext(
        trusted_ca=base_pb2.DataSource(filename=path),
        watched_directory=base_pb2.WatchedDirectory(path=posixpath.dirname(path) or "."),
    )
    return secret_pb2.Secret(name=name, validation_context=context)


def _host(host: str) -> common_pb2.SubjectAltNameMatcher:
    kind = (
        common_pb2.SubjectAltNameMatcher.IP_ADDRESS if is_ip(host) else common_pb2.SubjectAltNameMatcher.DNS
    )
    return common_pb2.SubjectAltNameMatcher(san_type=kind, matcher=string_pb2.StringMatcher(exact=host))


def _common(identities: list[string_pb2.StringMatcher], alpn: str) -> tls_pb2.CommonTlsContext:
    combined = tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=_names(identities)
        ),
        validation_context_sds_secret_config=_secret(ROOTS),
    )
    return tls_pb2.CommonTlsContext(
        tls_params=_tls_1_3(),
        tls_certificate_sds_secret_configs=[_secret(IDENTITY)],
        combined_validation_context=combined,
        alpn_protocols=[alpn] if alpn else [],
    )


def _names(identities: list[string_pb2.StringMatcher]) -> list[common_pb2.SubjectAltNameMatcher]:
    uri = common_pb2.SubjectAltNameMatcher.URI
    return [common_pb2.SubjectAltNameMatcher(san_type=uri, matcher=one) for one in identities]


def _tls_1_3() -> common_pb2.TlsParameters:
    # Both ends: a minimum alone leaves the maximum of an upstream below it.
    return common_pb2.TlsParameters(
        tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
        tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
    )


def _secret(name: str) -> secret_pb2.SdsSecretConfig:
    # For ever: a proxy without its certificate is to wait for it, not to start without.
    return secret_pb2.SdsSecretConfig(name=name, sds_config=ads(wait_s=0))


def _socket(context: tls_pb2.UpstreamTlsContext | tls_pb2.DownstreamTlsContext) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
