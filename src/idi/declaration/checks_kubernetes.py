"""What can't work on a cluster, known before anything is sent there.

A cluster says so late and elsewhere: a quota that is too small is an event of a ReplicaSet, a name that is taken is a
conflict of a release. Here it is a line of the file.
"""

from __future__ import annotations

from ipaddress import ip_network

from idi.declaration.demand import bounds, least, most, quota_of
from idi.declaration.nodes import Node, Scalar, Table, find, items, keys
from idi.declaration.reader import Reader
from idi.declaration.scalars import shown
from idi.declaration.types import KubernetesTarget, ModuleName, Platform

LONGEST_NAMESPACE = 63
POLICIES = frozenset({"idi-default", "idi-control", "idi-xds", "idi-gateway"})
"""NetworkPolicies of the platform's chart; a module's is called as the module."""
SLOTS = ("-stable", "-candidate")
"""After a module's name: its Deployments, whose pods are called so too."""


def check_kubernetes(platform: Platform, tree: Table, target: Node | None, reader: Reader) -> None:
    """`tree` is the environment's whole, `target` where its target is written, if it is."""
    assert isinstance(platform.target, KubernetesTarget)
    place = target or tree
    _namespace(platform, place, reader)
    _addresses(place, reader)
    for key in keys(tree, "modules"):
        _name(tree, key, reader)
        module = find(tree, "modules", key.text)
        if isinstance(module, Table):
            _scale(platform, module, key.text, reader)
            _command(module, key.text, reader)
    if not reader.mistakes:  # what a module asks for is known once every module can be read
        _quota(platform, place, reader)


def _namespace(platform: Platform, place: Node, reader: Reader) -> None:
    name = platform.namespace
    where = find(place, "kubernetes", "namespace") or place
    if len(name) > LONGEST_NAMESPACE:
        reader.report(
            where,
            f"the namespace would be {name}, {len(name)} characters, and Kubernetes takes {LONGEST_NAMESPACE}; "
            "write target: {kubernetes: {namespace: ...}}, a shorter one.",
        )
    if name == "default" or name.startswith("kube-"):
        reader.report(
            where,
            f"namespace {name} is the cluster's own, and an environment has one to itself; write another, such as "
            f"{platform.name}-{platform.environment}.",
        )


def _addresses(place: Node, reader: Reader) -> None:
    for cidr in items(place, "kubernetes", "dns"):
        try:
            ip_network(cidr.text)
        except ValueError as error:
            reader.report(cidr, f"dns has {shown(cidr.text)}: {error}; write a range such as 10.96.0.10/32.")


def _name(tree: Table, key: Scalar, reader: Reader) -> None:
    if key.text in POLICIES:
        reader.report(
            key,
            f"{key.text} is a name of the platform's own in the namespace; call the module something else.",
        )
    for end in SLOTS:
        base = key.text.removesuffix(end)
        if base != key.text and find(tree, "modules", base) is not None:
            reader.report(
                key,
                f"{key.text} is what {base}'s own pods are called on a cluster; call this module something else.",
            )


def _scale(platform: Platform, module: Table, name: str, reader: Reader) -> None:
    declared, scale = platform.modules.get(ModuleName(name)), module.get("scale")
    if declared and declared.scale and scale and not declared.resources.cpu_millicores:
        reader.warn(scale, f"scaling by CPU needs a CPU request; give {name} resources: {{cpu: 250m}}.")


def _command(module: Table, name: str, reader: Reader) -> None:
    command = find(module, "readiness", "command")
    if command is not None:
        reader.report(
            command,
            f"on a cluster {name} is asked by the agent beside it, which cannot run a command in another container; "
            "write http or tcp.",
        )


def _quota(platform: Platform, place: Node, reader: Reader) -> None:
    assert isinstance(platform.target, KubernetesTarget)
    holds = quota_of(platform.target)
    needed, largest = least(platform), most(platform)
    for name, bound, need, text in bounds(holds, needed):
        node = find(place, "kubernetes", "quota", name)
        said = text(bound) if node else f"{text(bound)} where nothing is declared"
        where = node or find(place, "kubernetes", "quota") or find(place, "kubernetes") or place
        if need > bound:
            reader.report(
                where,
                f"quota {name} is {said}, and the platform's parts and the modules ask for {text(need)} with one pod "
                f"more to roll; write quota: {{{name}: {text(need)}}} or more, or lower instances or resources.",
            )
    for name, bound, need, text in bounds(holds, largest):
        node = find(place, "kubernetes", "quota", name)
        if node is not None and need > bound and not reader.mistakes:
            reader.warn(
                node,
                f"quota {name} is {text(bound)}: enough to begin with, but not for every module at its largest and "
                f"rolling at once, which asks for {text(need)}; what has no room waits.",
            )
