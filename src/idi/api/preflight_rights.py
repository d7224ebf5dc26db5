"""What whoever brings an environment up needs to be allowed: what the platform's chart consists of, and what it gives.

Kubernetes lets nobody give away what they have not got: who makes control's Role needs every right in it or the verb
`escalate`, and who lets control ask whose a token is has to be allowed to ask that, or may `escalate` and `bind` roles
of the cluster. All of it is asked at once, as the API server itself answers for this user. Tests hold the list against
the chart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from idi.api.cluster import Cluster
from idi.api.finding import Finding

RBAC = "rbac.authorization.k8s.io"
MAKES: tuple[tuple[str, str], ...] = (
    ("", "serviceaccounts"),
    ("", "services"),
    ("", "persistentvolumeclaims"),
    ("", "secrets"),
    ("", "resourcequotas"),
    ("", "limitranges"),
    ("apps", "deployments"),
    ("apps", "statefulsets"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "networkpolicies"),
    (RBAC, "roles"),
    (RBAC, "rolebindings"),
)
"""In the namespace: the release's objects, and the Secrets that Helm keeps it in."""
MAKE = ("get", "create", "patch", "delete")
ALL = ("get", "list", "watch", "create", "update", "patch", "delete")
SEE = ("get", "list", "watch")
GIVES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "services", ALL),
    ("", "configmaps", ALL),
    ("", "secrets", ALL),
    ("", "serviceaccounts", ALL),
    ("", "persistentvolumeclaims", ALL),
    ("apps", "deployments", ALL),
    ("apps", "statefulsets", ALL),
    ("autoscaling", "horizontalpodautoscalers", ALL),
    ("policy", "poddisruptionbudgets", ALL),
    ("networking.k8s.io", "networkpolicies", ALL),
    ("", "pods", (*SEE, "create", "patch", "delete")),
    ("", "events", SEE),
    ("", "resourcequotas", SEE),
    ("", "limitranges", SEE),
    ("", "pods/log", ("get",)),
    ("apps", "replicasets", SEE),
    ("discovery.k8s.io", "endpointslices", SEE),
    ("events.k8s.io", "events", SEE),
    ("metrics.k8s.io", "pods", ("get", "list")),
    # The roles of people.
    ("", "serviceaccounts/token", ("create",)),
    ("", "pods/portforward", ("get", "create")),
)
"""What control's Role and those of people allow."""
MOST_NAMED = 6


@dataclass(frozen=True, slots=True)
class Right:
    verb: str
    group: str
    resource: str
    name: str = ""
    everywhere: bool = False
    """Of the cluster and not of the namespace."""

    def attributes(self, namespace: str) -> Mapping[str, str]:
        resource, _, part = self.resource.partition("/")
        found = {"verb": self.verb, "group": self.group, "resource": resource}
        found |= {"subresource": part} if part else {}
        found |= {"name": self.name} if self.name else {}
        return found if self.everywhere else {**found, "namespace": namespace}

    def __str__(self) -> str:
        kind = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {kind}{f' {self.name}' if self.name else ''}"


EVERYTHING = Right("*", "*", "*", everywhere=True)
ESCALATE = Right("escalate", RBAC, "roles")
REVIEW = Right("create", "authentication.k8s.io", "tokenreviews", everywhere=True)
"""The one right of the cluster that is given away."""
GIVE_REVIEW = tuple(Right(verb, RBAC, "clusterroles", everywhere=True) for verb in ("escalate", "bind"))


def needed(namespace: str, *, there: bool) -> list[Right]:
    """Without what is given away; `there` says whether the namespace is."""
    of_namespace = Right("patch" if there else "create", "", "namespaces", namespace, everywhere=True)
    found = [of_namespace, Right("get", "", "namespaces", namespace, everywhere=True)]
    found += [Right(verb, group, resource) for group, resource in MAKES for verb in MAKE]
    found += [Right("list", "", "secrets"), Right("update", "", "secrets")]
    found += [
        Right(verb, RBAC, kind, everywhere=True)
        for kind in ("clusterroles", "clusterrolebindings")
        for verb in MAKE
    ]
    # The way to control, as idi goes it.
    found += [Right("create", "", "serviceaccounts/token"), Right("create", "", "pods/portforward")]
    return [*found, Right("get", "", "pods")]


def given() -> list[Right]:
    return [Right(verb, group, resource) for group, resource, verbs in GIVES for verb in verbs]


def rights(cluster: Cluster, *, there: bool) -> Iterator[Finding]:
    """One finding: all that is missing for `idi up`."""
    space = cluster.namespace
    if cluster.may([EVERYTHING.attributes(space)]) == [True]:
        yield Finding("rights", "ok", "you may do everything in this cluster")
        return
    asked = [*needed(space, there=there), *given(), ESCALATE, REVIEW, *GIVE_REVIEW]
    answers = cluster.may([right.attributes(space) for right in asked])
    yield judged(dict(zip(asked, answers, strict=True)), space, there=there)


def judged(answers: Mapping[Right, bool], namespace: str, *, there: bool) -> Finding:
    missing = [right for right in needed(namespace, there=there) if not answers[right]]
    if not answers[ESCALATE]:
        missing += [right for right in given() if not answers[right] and right not in missing]
    if not answers[REVIEW] and not all(answers[right] for right in GIVE_REVIEW):
        missing.append(REVIEW)
    if not missing:
        return Finding("rights", "ok", f"you may make all that an environment needs in {namespace}")
    remedy = (
        "Have somebody run idi up who may, or ask for these rights; somebody who only uses the environment later needs "
        "none of them but the Role of their role."
    )
    return Finding("rights", "fail", f"you may not {_some(missing)}", remedy)


def _some(missing: Iterable[Right]) -> str:
    grouped: dict[str, list[str]] = {}
    for right in missing:
        verb, _, kind = str(right).partition(" ")
        grouped.setdefault(kind, []).append(verb)
    named = [f"{', '.join(verbs)} {kind}" for kind, verbs in grouped.items()]
    more = f"; and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return "; ".join(named[:MOST_NAMED]) + more
