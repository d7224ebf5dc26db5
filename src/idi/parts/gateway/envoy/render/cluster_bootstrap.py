"""What every Envoy in a cluster is told at its start: where the plane is, and how both sides prove themselves.

The same files for all proxies of a kind, so they lie in one read-only folder and name nobody: node and cluster come
by the command line. The plane is found by its DNS name and proves it by the roots beside the files; the proxy
proves itself by the token that Kubernetes keeps fresh in a file, put into each request at each (re)connect, so no
stream ever comes with the token of an hour ago.

Roots and token are watched, by one of the kernel's inotify instances each: a user has fs.inotify.max_user_instances
of them on a node (128 unless it was raised), an Envoy that gets none does not start, and all our pods are one user.
So each is a secret within the file of its subscription. A subscription that names another file, with what Envoy shall
read, would take two; a secret without a subscription is read once. The roots' file is control's, like the bootstrap.
The token's is written by the pod's agent, into memory, whenever kubelet has put a new one there.
"""

from __future__ import annotations

import json
import posixpath
from dataclasses import dataclass
from typing import Any

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, config_source_pb2
from envoy.extensions.clusters.common.dns.v3 import dns_pb2
from envoy.extensions.clusters.dns.v3 import dns_cluster_pb2
from envoy.extensions.filters.http.credential_injector.v3 import credential_injector_pb2
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2 as hcm
from envoy.extensions.http.injected_credentials.generic.v3 import generic_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from idi.parts.gateway.envoy.arguments import TOKEN, TOKEN_FILE
from idi.parts.gateway.envoy.render import tls
from idi.parts.gateway.envoy.render.bootstrap import common_bootstrap, xds_cluster
from idi.parts.gateway.envoy.render.clusters import HTTP_OPTIONS
from idi.parts.gateway.envoy.render.http import http_filter
from idi.parts.gateway.envoy.render.proto import extension, is_ip, packed, seconds, socket_address

ROOTS = "xds.roots"
ROOTS_FILE = "roots.json"
DNS_REFRESH_S = 1.0


@dataclass(frozen=True, slots=True)
class ClusterXds:
    """Where proxies find the plane. `folder` holds the files of `cluster_files` in each pod."""

    host: str
    port: int
    folder: str = "/etc/idi/proxy"


def roots_subscription(roots: bytes) -> bytes:
    """The subscription to the roots of the plane."""
    trusted = common_pb2.CertificateValidationContext(trusted_ca=base_pb2.DataSource(inline_bytes=roots))
    secret = secret_pb2.Secret(name=ROOTS, validation_context=trusted)
    return _json(discovery_pb2.DiscoveryResponse(resources=[packed(secret)]))


def cluster_bootstrap(xds: ClusterXds, admin_socket: str, *, connections: int, heap_bytes: int) -> bytes:
    message = common_bootstrap(
        _cluster(xds, posixpath.dirname(admin_socket)),
        admin_socket,
        metadata=(),
        connections=connections,
        heap_bytes=heap_bytes,
    )
    document = json.loads(_json(message))
    _say_bearer(document)
    return json.dumps(document, indent=1).encode()


def _say_bearer(document: Any) -> None:
    """The proxy knows this field; the protobufs that we have for it don't yet."""
    options = document["static_resources"]["clusters"][0]["typed_extension_protocol_options"][HTTP_OPTIONS]
    bearer = options["http_filters"][0]["typed_config"]["credential"]["typed_config"]
    bearer["header_value_prefix"] = "Bearer "


def _cluster(xds: ClusterXds, runtime: str) -> cluster_pb2.Cluster:
    address = socket_address(xds.host, xds.port)
    cluster, options = xds_cluster(address)
    if not is_ip(xds.host):
        cluster.cluster_type.CopyFrom(_by_name())
    # What control puts there changes all at once, by a link that is renamed; the agent renames its file.
    roots = _from_file(ROOTS, posixpath.join(xds.folder, ROOTS_FILE), xds.folder)
    cluster.transport_socket.CopyFrom(tls.named_by(xds.host, roots, "h2"))
    token = _from_file(TOKEN, posixpath.join(runtime, TOKEN_FILE))
    bearer = generic_pb2.Generic(credential=token, header="authorization")
    injector = credential_injector_pb2.CredentialInjector(
        overwrite=True, credential=extension("envoy.http.injected_credentials.generic", bearer)
    )
    filters: list[hcm.HttpFilter] = [
        http_filter("envoy.filters.http.credential_injector", injector),
        http_filter("envoy.filters.http.upstream_codec", upstream_codec_pb2.UpstreamCodec()),
    ]
    options.http_filters.extend(filters)
    cluster.typed_extension_protocol_options[HTTP_OPTIONS].CopyFrom(packed(options))
    return cluster


def _by_name() -> cluster_pb2.Cluster.CustomClusterType:
    dns = dns_cluster_pb2.DnsCluster(
        dns_refresh_rate=seconds(DNS_REFRESH_S),
        dns_failure_refresh_rate=dns_cluster_pb2.DnsCluster.RefreshRate(
            base_interval=seconds(DNS_REFRESH_S / 2), max_interval=seconds(DNS_REFRESH_S)
        ),
        dns_lookup_family=dns_pb2.V4_PREFERRED,
    )
    return cluster_pb2.Cluster.CustomClusterType(name="envoy.cluster.dns", typed_config=packed(dns))


def _from_file(name: str, path: str, watched: str = "") -> secret_pb2.SdsSecretConfig:
    folder = base_pb2.WatchedDirectory(path=watched) if watched else None
    source = config_source_pb2.ConfigSource(
        path_config_source=config_source_pb2.PathConfigSource(path=path, watched_directory=folder),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )
    return secret_pb2.SdsSecretConfig(name=name, sds_config=source)


def _json(message: Message) -> bytes:
    return MessageToJson(message, preserving_proto_field_name=True, indent=1).encode()
