"""What every Envoy in a cluster is told at its start: where the plane is, and how both sides prove themselves.

The same files for all proxies of a kind, so they lie in one read-only folder and name nobody: node and cluster come
by the command line. The plane is found by its DNS name and proves it by the roots beside the files; the proxy
proves itself by the token that Kubernetes keeps fresh in a file, put into each request at each (re)connect, so no
stream ever comes with the token of an hour ago.

Roots and token are watched. Envoy does that only for a secret that a subscription delivers, hence the two files
with one secret each: the subscription is to a file that never changes, which says which file to watch. Each takes
two of the kernel's inotify instances, of which a user has fs.inotify.max_user_instances on a node (128 unless it
was raised); an Envoy that gets none does not start.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
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
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from idi.parts.gateway.envoy.render import tls
from idi.parts.gateway.envoy.render.bootstrap import common_bootstrap, xds_cluster
from idi.parts.gateway.envoy.render.clusters import HTTP_OPTIONS
from idi.parts.gateway.envoy.render.http import http_filter
from idi.parts.gateway.envoy.render.proto import extension, is_ip, packed, seconds, socket_address

ROOTS = "xds.roots"
TOKEN = "xds.token"
ROOTS_FILE = "roots.json"
TOKEN_FILE = "token.json"
DNS_REFRESH_S = 1.0
SILENT_S = 5.0
"""As the plane asks its proxies: one whose node died is left for another replica within ten seconds."""


@dataclass(frozen=True, slots=True)
class ClusterXds:
    """Where proxies find the plane. `folder` holds the files of `cluster_files` and `ca.crt` in each pod; `token`
    is the projected token."""

    host: str
    port: int
    folder: str = "/etc/idi/proxy"
    token: str = "/var/run/idi/token/token"

    @property
    def roots(self) -> str:
        return posixpath.join(self.folder, "ca.crt")


def secret_files(xds: ClusterXds) -> Mapping[str, bytes]:
    """The two subscriptions, by their names in the folder."""
    token = secret_pb2.GenericSecret(
        secret=base_pb2.DataSource(
            filename=xds.token,
            watched_directory=base_pb2.WatchedDirectory(path=posixpath.dirname(xds.token)),
        )
    )
    return {
        ROOTS_FILE: _subscription(tls.roots_secret(ROOTS, xds.roots)),
        TOKEN_FILE: _subscription(secret_pb2.Secret(name=TOKEN, generic_secret=token)),
    }


def cluster_bootstrap(xds: ClusterXds, admin_socket: str, *, connections: int, heap_bytes: int) -> bytes:
    message = common_bootstrap(
        _cluster(xds), admin_socket, metadata=(), connections=connections, heap_bytes=heap_bytes
    )
    document = json.loads(_json(message))
    _say_bearer(document)
    return json.dumps(document, indent=1).encode()


def _say_bearer(document: Any) -> None:
    """The proxy knows this field; the protobufs that we have for it don't yet."""
    options = document["static_resources"]["clusters"][0]["typed_extension_protocol_options"][HTTP_OPTIONS]
    bearer = options["http_filters"][0]["typed_config"]["credential"]["typed_config"]
    bearer["header_value_prefix"] = "Bearer "


def _cluster(xds: ClusterXds) -> cluster_pb2.Cluster:
    address = socket_address(xds.host, xds.port)
    cluster, options = xds_cluster(address, SILENT_S)
    if not is_ip(xds.host):
        cluster.cluster_type.CopyFrom(_by_name())
    cluster.transport_socket.CopyFrom(tls.named_by(xds.host, _from_file(ROOTS, xds, ROOTS_FILE), "h2"))
    bearer = generic_pb2.Generic(credential=_from_file(TOKEN, xds, TOKEN_FILE), header="authorization")
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


def _from_file(name: str, xds: ClusterXds, file: str) -> secret_pb2.SdsSecretConfig:
    source = config_source_pb2.ConfigSource(
        path_config_source=config_source_pb2.PathConfigSource(path=posixpath.join(xds.folder, file)),
        resource_api_version=config_source_pb2.ApiVersion.V3,
    )
    return secret_pb2.SdsSecretConfig(name=name, sds_config=source)


def _subscription(secret: secret_pb2.Secret) -> bytes:
    return _json(discovery_pb2.DiscoveryResponse(resources=[packed(secret)]))


def _json(message: Message) -> bytes:
    return MessageToJson(message, preserving_proto_field_name=True, indent=1).encode()
