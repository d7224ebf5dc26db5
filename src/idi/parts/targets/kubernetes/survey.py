"""Modules' releases held against the cluster: what is otherwise there than it was sent, and what would be refused.

Both read what the release's chart renders, which depends on nothing but the values, so it is kept. Drift is one listing
of each kind of object for all modules together, compared here (drift.py). A trial is every object sent as Helm would
send it, with the API server told not to keep it: validation, admission, quotas and immutable fields say what they would
say. Of pods, which a Deployment makes only later, one is tried as well, and where more of them come at once the quotas
are asked for the room that they need.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes import Kubernetes, KubernetesError, path
from idi.parts.errors import PartError
from idi.parts.targets.interface import Objection
from idi.parts.targets.kubernetes.drift import additions, drift
from idi.parts.targets.kubernetes.pods import MODULE
from idi.parts.targets.kubernetes.quota import lacking
from idi.world.types import Drift

Json = dict[str, Any]
T = TypeVar("T")

HELM = "helm"
"""The field manager that Helm writes as."""
RELEASE = "meta.helm.sh/release-name"
RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"
STRATEGIC = "application/strategic-merge-patch+json"
MOST_KEPT = 256
MOST_AT_ONCE = 8
KINDS = {
    "ConfigMap": ("v1", "configmaps"),
    "Deployment": ("apps/v1", "deployments"),
    "HorizontalPodAutoscaler": ("autoscaling/v2", "horizontalpodautoscalers"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "Service": ("v1", "services"),
    "ServiceAccount": ("v1", "serviceaccounts"),
    "StatefulSet": ("apps/v1", "statefulsets"),
}
"""All that the module's chart has."""
MAKES_PODS = ("Deployment", "StatefulSet")


class Renders(Protocol):
    async def render(self, module: str, values: Mapping[str, Any]) -> list[Json]:
        """The objects that these values make. Raises `PartError`."""


@dataclass(slots=True)
class Survey:
    api: Kubernetes
    namespace: str
    releases: Renders
    _kept: dict[str, list[Json]] = field(default_factory=dict)
    _places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_AT_ONCE))

    async def drift(
        self, sent: Mapping[ModuleName, Mapping[str, Any]]
    ) -> dict[ModuleName, tuple[Drift, ...]]:
        """By module, whose release has these values. Raises `PartError` where the cluster cannot be asked."""
        declared = dict(zip(sent, await each(self.rendered(name, sent[name]) for name in sent), strict=True))
        kinds = sorted({one["kind"] for objects in declared.values() for one in objects})
        labels = f"{MODULE}={next(iter(sent))}" if len(sent) == 1 else MODULE
        lists = await each(self._all(kind, labels) for kind in kinds)
        there = dict(zip(kinds, lists, strict=True))
        found: dict[ModuleName, tuple[Drift, ...]] = {}
        for name, objects in declared.items():
            its: list[Drift] = []
            for one in objects:
                live = there[one["kind"]].get(one["metadata"]["name"])
                if live is None:  # or it has lost its label
                    live = await self.api.find(self._path(one))
                its += drift(one, live)
            found[name] = tuple(its)
        return found

    async def objections(
        self, module: str, values: Mapping[str, Any], *, pods: int, new: bool, fresh: bool
    ) -> list[Objection]:
        """What the API server has against these values. `pods`: so many come beside those that are there; `new`: pods
        are made at all; `fresh`: no release of the module is there."""
        try:
            objects = await self.rendered(module, values)
        except PartError as error:
            return [Objection(f"release {module}", error.message, error.way_out)]
        tried = [self._tried(module, one, fresh=fresh) for one in objects]
        if new:
            tried += [
                self._pods(module, one, pods, fresh=fresh) for one in objects if one["kind"] in MAKES_PODS
            ]
        return [one for found in await each(tried) for one in found]

    async def take_away(self, module: str, values: Mapping[str, Any]) -> None:
        """What nobody declared of pods' variables: Helm leaves alone what others own."""
        for one in await self.rendered(module, values):
            if one["kind"] in MAKES_PODS and (live := await self.api.find(self._path(one))):
                if (patch := additions(one, live)) is not None:
                    await self.api.call(
                        "PATCH", self._path(one), patch, query={"fieldManager": HELM}, kind=STRATEGIC
                    )

    async def makers(self, module: str) -> list[Json]:
        """What makes its pods, as it is now."""
        found = await each(self._all(kind, f"{MODULE}={module}") for kind in MAKES_PODS)
        return [one for those in found for one in those.values()]

    async def rendered(self, module: str, values: Mapping[str, Any]) -> list[Json]:
        """The latest are kept: the same values are the same objects."""
        digest = hashlib.sha256(json.dumps([module, values], sort_keys=True).encode()).hexdigest()
        found = self._kept.pop(digest, None)
        if found is None:
            found = [one for one in await self.releases.render(module, values) if one["kind"] in KINDS]
            while len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
        self._kept[digest] = found
        return found

    # --- within

    def _path(self, one: Mapping[str, Any]) -> str:
        api, plural = KINDS[one["kind"]]
        return path(api, plural, self.namespace, one["metadata"]["name"])

    async def _all(self, kind: str, labels: str) -> dict[str, Json]:
        api, plural = KINDS[kind]
        found = await self.api.listing(path(api, plural, self.namespace), labels=labels)
        return {one["metadata"]["name"]: one for one in found.items}

    async def _tried(self, module: str, one: Json, *, fresh: bool) -> list[Objection]:
        name = f"{one['kind']} {one['metadata']['name']}"
        async with self._places:
            if fresh and (there := await self.api.find(self._path(one))) is not None:
                if (there["metadata"].get("annotations") or {}).get(RELEASE) != module:
                    words = "is there already, and no release of this module made it"
                    return [Objection(name, words, "Remove or rename it, or give the module another name.")]
            try:
                document = as_sent(one, module, self.namespace)
                await self.api.apply(self._path(one), document, force=True, dry_run=True, manager=HELM)
            except KubernetesError as error:
                return [objection(name, error)]
        return []

    async def _pods(self, module: str, one: Json, count: int, *, fresh: bool) -> list[Objection]:
        """What is said to one pod of its template, and whether there is room for all that come."""
        name = f"Pod of {one['kind']} {one['metadata']['name']}"
        template = one["spec"]["template"]
        spec = dict(template["spec"])
        if fresh:
            spec["serviceAccountName"] = "default"  # its own comes with the release
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**template["metadata"], "generateName": f"{module}-trial-"},
            "spec": spec,
        }
        async with self._places:
            try:
                made = await self.api.create(path("v1", "pods", self.namespace), pod, dry_run=True)
            except KubernetesError as error:
                if error.forbidden and " cannot " in error.said:
                    raise  # by a Role of an earlier chart control may make none, and a Deployment will
                # Where the old ones end first they leave the room.
                return [] if error.quota_exceeded and not count else [objection(name, error)]
            quotas = await self.api.listing(path("v1", "resourcequotas", self.namespace))
        short = lacking(made, count, quotas.items)
        return [Objection(name, short, QUOTA)] if short else []


NO_DRY_RUN = "does not support dry run"
"""As the API server says of webhooks that have effects elsewhere."""
QUOTA = "Raise the environment's quota, or scale something else down."


def as_sent(one: Json, module: str, namespace: str) -> Json:
    """With what Helm adds to every object of a release."""
    metadata = one["metadata"]
    annotations = {**(metadata.get("annotations") or {}), RELEASE: module, RELEASE_NAMESPACE: namespace}
    return {**one, "metadata": {**metadata, "namespace": namespace, "annotations": annotations}}


def objection(name: str, error: KubernetesError) -> Objection:
    if (error.retryable and not error.quota_exceeded) or NO_DRY_RUN in error.said:
        raise error  # it was not judged
    return Objection(name, error.said, what_helps(error))


def what_helps(error: KubernetesError) -> str:
    if error.quota_exceeded:
        return QUOTA
    if (
        "immutable" in error.said
        or "Forbidden: updates to" in error.said
        or "spec is immutable" in error.said
    ):
        return "Leave it as it was; or remove that object first, with all that this ends, and run idi up."
    if error.forbidden and " cannot " in error.said:
        return error.way_out
    if error.forbidden or "denied" in error.said:
        return "A policy of the cluster is against it: change what it names, or ask who keeps the policy."
    if error.invalid:
        return "Change what it names in the declaration."
    return error.way_out


async def each(work: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """All of it beside each other; the first error ends the others, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
