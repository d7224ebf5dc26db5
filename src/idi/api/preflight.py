"""A cluster before anything is sent there: whether it has what an environment needs, each answer with its way out.

Everything is read, but for the trial (preflight_trial.py), whose namespace goes again. All is asked at the same time,
and each check has an end of its own: one that gives no answer until then is named, and the others stand.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from typing import Any

from idi.api.cluster import Cluster, Versions
from idi.api.environments import check_seal, target_of
from idi.api.finding import Finding
from idi.api.kubectl import Denied, find, run, version_of
from idi.api.preflight_nodes import nodes
from idi.api.preflight_rights import rights
from idi.api.preflight_trial import TRIAL_S, Trial
from idi.declaration.demand import Demand, cpu_text, least, memory_text, most
from idi.declaration.types import Platform
from idi.parts.clients import helm, profiles
from idi.parts.clients.kubernetes_quantity import amount
from idi.parts.errors import IdiError
from idi.plan.bus import with_bus

CHECK_S = 60.0
"""For one check, whatever it asks; one question to the cluster has half of that (kubectl.RUN_S)."""
OLDEST = (1, 29)
"""The first that has native sidecars switched on."""
TRIED = "1.34"
HELM = 4
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
METRICS = "v1beta1.metrics.k8s.io"
CLOUDS = {"gce": "GKE", "aws": "EKS", "azure": "AKS"}
"""By what a node's provider is called: clusters that make load balancers."""

Look = Callable[[Cluster, Platform], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """`look` answers; `reads` is what it has to see for that."""

    name: str
    reads: str
    look: Look


def tools() -> Iterator[Finding]:
    """The two programs that a cluster is reached with from here."""
    try:
        path = find()
        yield Finding("kubectl", "ok", f"{version_of(path)}, {path}")
    except IdiError as error:
        yield Finding("kubectl", "fail", error.message, error.way_out)
    try:
        program = helm.find()
        said = run([str(program), "version", "--template", "{{.Version}}"], timeout_s=10)
        text = said.out.decode("utf-8", "replace").strip().removeprefix("v")
        number = version(text)
        if said.code or not number:
            yield Finding("helm", "fail", f"{program} does not run: {said.err}", "Install Helm 4.")
        elif number[0] < HELM:
            remedy = "Install Helm 4 (https://helm.sh/docs/intro/install), or name it in IDI_HELM."
            yield Finding("helm", "fail", f"{text}, {program}: Helm {HELM} is needed", remedy)
        else:
            yield Finding("helm", "ok", f"{text}, {program}")
    except IdiError as error:
        yield Finding("helm", "fail", error.message, error.way_out)


def preflight(platform: Platform, say: Callable[[str], None]) -> Iterator[Finding]:
    """Findings in an order that does not change, each as soon as it is there. `say` is told what is waited for."""
    target = target_of(platform)
    try:
        cluster = Cluster(target.context, platform.namespace)
        versions = cluster.version()
    except IdiError as error:
        yield Finding("cluster", "fail", error.message, error.way_out)
        return
    yield from reached(cluster, versions)
    image = target.images.sidecar if target.images else ""
    stop = threading.Event()
    began = time.monotonic()
    trial = Trial(cluster.context, cluster.kubectl, image, began + TRIAL_S, stop)
    with ThreadPoolExecutor(1 + len(CHECKS), "preflight") as threads:
        try:
            # The trial first: it takes longest.
            tried = threads.submit(lambda: list(trial.findings()))
            asked = [(check, threads.submit(looked, check, cluster, platform)) for check in CHECKS]
            for check, future in asked:
                yield from answered(check, future, began + CHECK_S)
            if not tried.done():
                say("Trying in two pods whether network policies hold; the namespace for it goes again.")
            # However late: what it made has to be gone before this ends, and each step of it has an end.
            yield from tried.result()
        finally:
            stop.set()


def looked(check: Check, cluster: Cluster, platform: Platform) -> list[Finding]:
    """What it found, whatever the cluster says."""
    try:
        return list(check.look(cluster, platform))
    except Denied:
        remedy = "Have somebody run idi doctor who may."
        return [Finding(check.name, "warn", f"not looked at: you may not read {check.reads}", remedy)]
    except IdiError as error:
        return [Finding(check.name, "fail", error.message, error.way_out)]


def answered(check: Check, future: Future[list[Finding]], until: float) -> list[Finding]:
    try:
        return future.result(max(0.1, until - time.monotonic()))
    except Late:
        said = f"the cluster took longer than {CHECK_S:.0f} s to tell {check.reads}"
        remedy = (
            "Try again; where it stays so slow, idi up will wait long, too: see how its API server fares."
        )
        return [Finding(check.name, "fail", said, remedy)]


def reached(cluster: Cluster, versions: Versions) -> Iterator[Finding]:
    who = ""
    try:
        who = f", as {cluster.who()}"
    except IdiError:
        pass  # older servers do not tell; the rights are asked all the same
    yield judged_version(versions, f"context {cluster.context}{who}")


def judged_version(versions: Versions, where: str) -> Finding:
    server, client = version(versions.server), version(versions.client)
    oldest = ".".join(map(str, OLDEST))
    detail = f"Kubernetes {versions.server}, {where}"
    if server[:2] < OLDEST:
        remedy = (
            f"Upgrade the cluster: {oldest} is the first with native sidecars; {TRIED} is what is tested."
        )
        return Finding("cluster", "fail", detail, remedy)
    if server[:1] == client[:1] and abs(server[1] - client[1]) > 1:
        remedy = "kubectl gets on with servers one minor version away; name another in IDI_KUBECTL."
        return Finding("cluster", "warn", f"{detail}; kubectl is {versions.client}", remedy)
    return Finding("cluster", "ok", detail)


def version(text: str) -> tuple[int, ...]:
    """`1.34.4-gke.100` as (1, 34, 4), nothing where it is none."""
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(number) for number in found.groups("0")) if found else ()


def permitted(cluster: Cluster, _: Platform) -> Iterator[Finding]:
    space = None
    try:
        space = cluster.get("namespace", cluster.namespace)
    except Denied:
        pass  # it may be there all the same; then the right to change it is missing too
    yield from rights(cluster, there=space is not None)


def storage(cluster: Cluster, platform: Platform) -> Iterator[Finding]:
    every = (cluster.get("storageclasses.storage.k8s.io") or {}).get("items", [])
    yield judged_storage(every, profiles.storage_class(target_of(platform)))


def judged_storage(every: Sequence[Mapping[str, Any]], wanted: str) -> Finding:
    there = ", ".join(sorted(one["metadata"]["name"] for one in every)) or "none"
    if wanted:
        found = [one for one in every if one["metadata"]["name"] == wanted]
        remedy = f"Declare one of those that there are ({there}), or make it."
        missing = Finding("storage", "fail", f"there is no StorageClass {wanted}", remedy)
    else:
        found = [one for one in every if _default(one)]
        remedy = f"Declare target.kubernetes.storage_class; there is: {there}."
        missing = Finding("storage", "fail", "no StorageClass is the default one", remedy)
    if not found:
        return missing
    names = [one["metadata"]["name"] for one in found]
    if len(names) > 1:
        remedy = f"Declare which: target.kubernetes.storage_class: {names[0]}"
        return Finding("storage", "warn", f"several are the default: {', '.join(names)}", remedy)
    detail = f"StorageClass {names[0]}{'' if wanted else ' (the default)'}, {found[0].get('provisioner', '')}"
    if found[0].get("provisioner") == "kubernetes.io/no-provisioner":
        remedy = "Make a PersistentVolume for control and for each module with storage, seal, or use another class."
        return Finding("storage", "warn", f"{detail}: nobody makes volumes", remedy)
    return Finding("storage", "ok", detail)


def _default(one: Mapping[str, Any]) -> bool:
    return bool(one["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true")


def seal(cluster: Cluster, platform: Platform) -> Iterator[Finding]:
    if declared := target_of(platform).seal:
        check_seal(cluster, declared)
        yield Finding("seal", "ok", f"Secret {declared.secret} has OpenBao's seal key")


def metrics(cluster: Cluster, platform: Platform) -> Iterator[Finding]:
    scaled = [module.name for module in platform.modules.values() if module.scale]
    if scaled:
        yield judged_metrics(cluster.get("apiservices.apiregistration.k8s.io", METRICS), scaled)


def judged_metrics(service: Mapping[str, Any] | None, scaled: Sequence[str]) -> Finding:
    names = ", ".join(scaled)
    if service is None:
        remedy = "Install metrics-server: https://github.com/kubernetes-sigs/metrics-server"
        return Finding("metrics", "fail", f"there is no metrics API, which {names} scale by", remedy)
    for condition in service.get("status", {}).get("conditions", ()):
        if condition["type"] == "Available" and condition["status"] != "True":
            why = condition.get("message", "")
            remedy = "kubectl -n kube-system get pods says how metrics-server fares."
            return Finding("metrics", "fail", f"the metrics API does not answer: {why}", remedy)
    return Finding("metrics", "ok", f"there for {names} to scale by")


def machines(cluster: Cluster, platform: Platform) -> Iterator[Finding]:
    # Broker and relay are modules too, where there are events.
    yield from nodes((cluster.get("nodes") or {}).get("items", []), with_bus(platform))


def quota(cluster: Cluster, platform: Platform) -> Iterator[Finding]:
    every = (cluster.get("resourcequotas") or {}).get("items", [])
    yield judged_quota([one for one in every if one["metadata"]["name"] != "idi"], platform)


def judged_quota(every: Sequence[Mapping[str, Any]], platform: Platform) -> Finding:
    """Quotas that others set; the platform's own was held against the declaration when that was read."""
    must, may = least(platform), most(platform)
    tight = []
    for one in every:
        for key, hard in one.get("spec", {}).get("hard", {}).items():
            if not (need := _need(key, must)):
                continue
            told = f"{one['metadata']['name']} has {key}: {hard}"
            if amount(hard) < need[0]:
                remedy = "Have it raised, or lower instances or resources."
                said = f"{told}, and the environment asks for {need[1]} with one pod more to roll"
                return Finding("quota", "fail", said, remedy)
            if amount(hard) < (_need(key, may) or need)[0]:
                tight.append(told)
    asked = f"{cpu_text(must.cpu_millicores)} CPU, {memory_text(must.memory_bytes)}, {must.pods} pods"
    if tight:
        remedy = "What has no room waits; have them raised if every module shall grow and roll at once."
        return Finding(
            "quota", "warn", f"enough for {asked}, not for the largest: {'; '.join(tight)}", remedy
        )
    who = "the namespace's quotas allow" if every else "no quota of others is in the way of"
    return Finding("quota", "ok", f"{who} {asked}")


def _need(key: str, demand: Demand) -> tuple[float, str] | None:
    """What a key of a quota is held against, as number and as text."""
    name = key.removeprefix("requests.")
    match name, key:
        case "cpu", _:
            return demand.cpu_millicores / 1000, cpu_text(demand.cpu_millicores)
        case "memory", _:
            return demand.memory_bytes, memory_text(demand.memory_bytes)
        case _, "limits.memory":
            return demand.memory_limit_bytes, memory_text(demand.memory_limit_bytes)
        case "storage", _:
            return demand.storage_bytes, memory_text(demand.storage_bytes)
        case "persistentvolumeclaims", _:
            return demand.claims, str(demand.claims)
        case (("pods" | "count/pods"), _):
            return demand.pods, str(demand.pods)
    return None


def balancer(cluster: Cluster, platform: Platform) -> Iterator[Finding]:
    if target_of(platform).gateway != "LoadBalancer":
        return
    own = cluster.get("service", "gateway")
    every = (cluster.get("nodes") or {}).get("items", [])
    yield judged_balancer(own, every)


def judged_balancer(own: Mapping[str, Any] | None, every: Sequence[Mapping[str, Any]]) -> Finding:
    """Nobody tells whether somebody makes load balancers; what there is, shows it."""
    remedy = "Use gateway: NodePort or ClusterIP, or install what makes load balancers (MetalLB, or the cloud's own)."
    if own and own.get("spec", {}).get("type") == "LoadBalancer":
        given = own.get("status", {}).get("loadBalancer", {}).get("ingress") or []
        if given:
            return Finding(
                "balancer", "ok", f"the gateway has {given[0].get('ip') or given[0].get('hostname')}"
            )
        return Finding("balancer", "warn", "the gateway waits for its load balancer", remedy)
    made_by = {str(node.get("spec", {}).get("providerID", "")).partition(":")[0] for node in every}
    clouds = sorted(CLOUDS[name] for name in made_by if name in CLOUDS)
    if clouds:
        return Finding("balancer", "ok", f"{', '.join(clouds)} makes load balancers")
    return Finding("balancer", "warn", "nothing shows that somebody makes load balancers here", remedy)


CHECKS: tuple[Check, ...] = (
    Check("rights", "what you may", permitted),
    Check("storage", "StorageClasses", storage),
    Check("seal", "its Secret", seal),
    Check("nodes", "the nodes", machines),
    Check("quota", "the namespace's quotas", quota),
    Check("metrics", "which APIs there are", metrics),
    Check("balancer", "the gateway's Service and the nodes", balancer),
)
