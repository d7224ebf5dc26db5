"""What a fresh API server is given: who may do what, the system's services, the class of volumes."""

from __future__ import annotations

import base64
import http.client
import time
from typing import Any

from tests.support.cluster.api import AGAIN_S, Api, ApiError
from tests.support.cluster.control import METRICS_PORT, PROVISIONER
from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import API, DNS, Layout, Node

ROLES = "/apis/rbac.authorization.k8s.io/v1"
SYSTEM = "/namespaces/kube-system"
READ = ["get", "list", "watch"]


def await_roles(api: Api, timeout_s: float) -> None:
    """Until the API server has the system's roles: before that its controllers are refused."""
    deadline = time.monotonic() + timeout_s
    last: object = None
    while time.monotonic() < deadline:
        try:
            # Only an administrator may ask for this; /readyz itself turns good a second or two later.
            api.get("/readyz/poststarthook/rbac/bootstrap-roles")
            return
        except (OSError, http.client.HTTPException, ApiError) as error:
            last = error
            time.sleep(AGAIN_S)
    raise ClusterError(f"the API server is not ready within {timeout_s:g} s: {last}")


def install(api: Api, layout: Layout) -> None:
    _may(api, "kubelet-api", "system:kubelet-api-admin", "kube-apiserver-kubelet-client")
    core = ["namespaces", "pods", "services", "nodes", "endpoints"]
    rules = [("", core), ("networking.k8s.io", ["networkpolicies"]), ("discovery.k8s.io", ["endpointslices"])]
    role = {
        "metadata": {"name": "kube-router"},
        "rules": [{"apiGroups": [group], "resources": kinds, "verbs": READ} for group, kinds in rules],
    }
    api.create(f"{ROLES}/clusterroles", role)
    _may(api, "kube-router", "kube-router", "kube-router")
    _service(api, "metrics-server", [("https", 443, METRICS_PORT, "TCP")])
    _service(api, "kube-dns", [("dns", 53, 53, "UDP"), ("dns-tcp", 53, 53, "TCP")], address=DNS)
    authority = base64.b64encode((layout.keys / "ca.crt").read_bytes()).decode()
    metrics = {
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
            "caBundle": authority,
            "service": {"name": "metrics-server", "namespace": "kube-system"},
        },
    }
    api.create("/apis/apiregistration.k8s.io/v1/apiservices", metrics)
    volumes = {
        "metadata": {
            "name": "local",
            "annotations": {
                "storageclass.kubernetes.io/is-default-class": "true",
                # Kubelet mounts this kind itself, with the pod's group.
                "defaultVolumeType": "local",
            },
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        # A volume belongs to a node, so the pod is placed first.
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    api.create("/apis/storage.k8s.io/v1/storageclasses", volumes)


def place(api: Api, node: Node) -> None:
    """Tell the range of its pods, which kube-router looks for."""
    api.patch(f"/api/v1/nodes/{node.name}", {"spec": {"podCIDR": node.pods, "podCIDRs": [node.pods]}})


def _may(api: Api, name: str, role: str, user: str) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": user, "apiGroup": group}],
    }
    api.create(f"{ROLES}/clusterrolebindings", binding)


def _service(api: Api, name: str, ports: list[tuple[str, int, int, str]], address: str | None = None) -> None:
    """A service whose one endpoint is the control plane's own address."""
    inside = [{"name": n, "port": p, "targetPort": t, "protocol": kind} for n, p, t, kind in ports]
    spec: dict[str, Any] = {"ports": inside}
    if address:
        spec["clusterIP"] = address
    api.create(f"/api/v1{SYSTEM}/services", {"metadata": {"name": name}, "spec": spec})
    endpoints = {
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": n, "port": t, "protocol": kind} for n, _, t, kind in ports],
        "endpoints": [{"addresses": [API], "conditions": {"ready": True}}],
    }
    api.create(f"/apis/discovery.k8s.io/v1{SYSTEM}/endpointslices", endpoints)
