"""A node: containerd, kubelet, kube-proxy and kube-router in a network, a mount and a pid namespace of their own.

Several paths are fixed in the components, whatever they are told (device plugins, CNI results, flex volumes,
/opt/containerd): private folders are bound over the places that hold them. Kubelet writes three settings of the
whole machine when they differ from what it wants: small files are bound over those, with what it wants to read. Its
pods' cgroups are a branch of this cluster's own in each tree of cgroup v1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.cluster.control import NETWORK_SYSCTLS, SERVER
from tests.support.cluster.group import Kept, Spec
from tests.support.cluster.layout import (
    API,
    DNS,
    DOMAIN,
    PODS,
    POOL,
    REGISTRY,
    REGISTRY_PORT,
    SERVICES,
    Layout,
    Node,
)
from tests.support.cluster.pki import Authority
from tests.support.cluster.private import write_private

SOCKET = "/run/containerd/containerd.sock"
MACHINE_SYSCTLS = {"vm/overcommit_memory": "1", "kernel/panic": "10", "kernel/panic_on_oops": "1"}
PRIVATE = ("/run", "/var/log", "/var/lib", "/opt")
UNUSED = (
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
)


def folder(layout: Layout, node: Node) -> Path:
    return layout.folder / node.name


def certificates(layout: Layout, authority: Authority, node: Node) -> None:
    names, addresses = [node.name], [node.address]
    authority.pair(node.name, f"system:node:{node.name}", ["system:nodes"], names=names, addresses=addresses)
    write_private(layout.keys / f"{node.name}.kubeconfig", authority.kubeconfig(node.name, SERVER))


def routes(node: Node, others: list[Node]) -> list[str]:
    """For `ip -batch`, once its end of the wire is there: each node reaches the others' pods by itself."""
    commands = [
        "link set lo up",
        f"addr add {node.address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {API}",
    ]
    return commands + [f"route add {other.pods} via {other.address}" for other in others]


def spec(
    layout: Layout,
    node: Node,
    programs: Mapping[str, Path],
    pause: str,
    branch: str,
    system: list[str],
    logs: Path,
) -> Spec:
    """`branch` is the cgroup under which kubelet makes those of the pods, `system` those of the components."""
    here = folder(layout, node)
    kubeconfig = layout.keys / f"{node.name}.kubeconfig"
    files = [
        (_file(here / "sysctl" / name, value), f"/proc/sys/{name}") for name, value in MACHINE_SYSCTLS.items()
    ]
    folders = [(str(here / path.strip("/").replace("/", "-")), path) for path in PRIVATE]
    kubelet = [
        str(programs["kubelet"]),
        f"--config={_file(here / 'kubelet.json', _kubelet(layout, node, branch, here))}",
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels={POOL}={node.pool}",
    ]
    router = [
        str(programs["kube-router"]),
        # Routes are laid here and services are kube-proxy's: it is here for network policies alone.
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-firewall=true",
        f"--kubeconfig={layout.keys}/kube-router.kubeconfig",
        f"--hostname-override={node.name}",
        f"--service-cluster-ip-range={SERVICES}",
        "--metrics-port=0",
    ]
    listing = [
        Kept(
            "containerd",
            ["containerd", "--config", _file(here / "containerd.toml", _containerd(here, pause))],
        ),
        Kept("kubelet", kubelet, after=SOCKET),
        Kept(
            "kube-proxy",
            [str(programs["kube-proxy"]), f"--config={_file(here / 'proxy.json', _proxy(layout, node))}"],
        ),
        # It ends if it may not read policies yet.
        Kept("kube-router", router, held=True),
    ]
    _file(here / "cni" / "10-test.conflist", _cni(node, here))
    _file(here / "certs.d" / REGISTRY / "hosts.toml", _registry())
    _file(here / "resolv.conf", "")
    return Spec(str(logs), listing, system, NETWORK_SYSCTLS, folders, files, [SOCKET, f"{SOCKET}.ttrpc"])


def _file(path: Path, content: object) -> str:
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    return str(write_private(path, text))


def _registry() -> str:
    address = f"http://{API}:{REGISTRY_PORT}"
    return f'server = "{address}"\n[host."{address}"]\n  capabilities = ["pull", "resolve"]\n'


def _containerd(here: Path, pause: str) -> str:
    return f"""\
version = 2
root = "{here}/containerd"
state = "/run/containerd"
oom_score = 0
disabled_plugins = {json.dumps(UNUSED)}
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  # Without it every sandbox fails where the machine does not let go of its own score.
  restrict_oom_score_adj = true
  sandbox_image = "{pause}"
  enable_unprivileged_ports = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{here}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      BinaryName = "runc"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{here}/certs.d"
"""


def _cni(node: Node, here: Path) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": str(here / "cni-data"),
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        # A pod is seen by its own address everywhere, or policies could not know it.
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "test", "plugins": [bridge, ports]}


def _kubelet(layout: Layout, node: Node, branch: str, here: Path) -> dict[str, Any]:
    keys = layout.keys
    none = (
        "memory.available",
        "nodefs.available",
        "nodefs.inodesFree",
        "imagefs.available",
        "imagefs.inodesFree",
    )
    taints = [{"key": POOL, "value": node.pool, "effect": "NoSchedule"}] if node.pool != "general" else []
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "port": 10250,
        "healthzPort": 0,
        "authentication": {
            "x509": {"clientCAFile": f"{keys}/ca.crt"},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{keys}/{node.name}.crt",
        "tlsPrivateKeyFile": f"{keys}/{node.name}.key",
        "registerWithTaints": taints,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{branch}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "resolvConf": str(here / "resolv.conf"),
        "clusterDNS": [DNS],
        "clusterDomain": DOMAIN,
        "podLogsDir": "/var/log/pods",
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        # The machine's disk and memory are not this node's: what others use of them must not evict its pods.
        "evictionHard": dict.fromkeys(none, "0%"),
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "localStorageCapacityIsolation": False,
        "nodeStatusUpdateFrequency": "3s",
        "nodeStatusReportFrequency": "3s",
        "syncFrequency": "10s",
        "serializeImagePulls": False,
        "maxPods": 110,
    }


def _proxy(layout: Layout, node: Node) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": node.name,
        "clusterCIDR": PODS,
        "clientConnection": {"kubeconfig": f"{layout.keys}/kube-proxy.kubeconfig"},
        # These would be settings of the whole machine.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
        "metricsBindAddress": "127.0.0.1:10249",
        "healthzBindAddress": "127.0.0.1:10256",
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    }
