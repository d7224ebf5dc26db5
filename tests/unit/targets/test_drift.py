"""What somebody changed on a cluster: declared objects against those that are there."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.parts.clients.kubernetes_quantity import quantity
from idi.parts.targets.kubernetes.drift import additions, differences, drift, spelled
from idi.parts.targets.kubernetes.quota import lacking

pytestmark = pytest.mark.requirement("K1")

Json = dict[str, Any]


def declared() -> Json:
    """As the module's chart renders it."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "jede-stable", "labels": {"idi.dev/module": "jede"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"idi.dev/module": "jede"}},
            "template": {
                "metadata": {"annotations": {"idi.dev/spec": "{}"}},
                "spec": {
                    "automountServiceAccountToken": False,
                    "affinity": None,
                    "containers": [
                        {
                            "name": "module",
                            "image": "jede@sha256:1",
                            "env": [{"name": "PORT", "value": "20001"}, {"name": "EMPTY", "value": ""}],
                            "resources": {"requests": {"cpu": "1000m", "memory": "1073741824"}},
                            "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                        }
                    ],
                    "tolerations": [{"key": "pool", "operator": "Equal", "value": "ml"}],
                    "volumes": [{"name": "tmp", "emptyDir": {}}],
                },
            },
        },
    }


def live() -> Json:
    """The same as the API server keeps it: canonical, with defaults, with what it manages."""
    found = copy.deepcopy(declared())
    del found["kind"], found["apiVersion"]
    found["metadata"] |= {
        "uid": "1",
        "generation": 1,
        "annotations": {"deployment.kubernetes.io/revision": "1"},
    }
    found["spec"]["progressDeadlineSeconds"] = 600
    pod = found["spec"]["template"]["spec"]
    del pod["affinity"]
    pod["dnsPolicy"] = "ClusterFirst"
    container = pod["containers"][0]
    container["terminationMessagePath"] = "/dev/termination-log"
    container["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}
    del container["env"][1]["value"]
    container["env"].reverse()
    container["volumeMounts"].append({"name": "kube-api-access", "mountPath": "/var/run/secrets"})
    return found


def container_of(one: Json) -> Json:
    found: Json = one["spec"]["template"]["spec"]["containers"][0]
    return found


def by(manager: str, fields: Json, **more: str) -> Json:
    return {
        "manager": manager,
        "operation": "Update",
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": fields,
        **more,
    }


IMAGE: Json = {
    "f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"module"}': {".": {}, "f:image": {}}}}}}
}


def test_what_the_server_makes_of_it_is_no_difference() -> None:
    assert differences(declared(), live()) == []


def test_another_image_is_told_with_who_wrote_it() -> None:
    there = live()
    container_of(there)["image"] = "other:1"
    there["metadata"]["managedFields"] = [
        by("helm", {"f:spec": {"f:replicas": {}}}),
        by("kubectl-edit", IMAGE),
        by("kube-controller-manager", {"f:status": {}}, subresource="status"),
    ]
    [one] = drift(declared(), there)
    assert (one.object, one.field) == (
        "Deployment jede-stable",
        "spec.template.spec.containers[module].image",
    )
    assert (one.declared, one.there, one.manager) == ("jede@sha256:1", "other:1", "kubectl-edit")
    assert not one.left


def test_a_deleted_object_is_gone() -> None:
    [one] = drift(declared(), None)
    assert (one.object, one.field) == ("Deployment jede-stable", "")


def test_who_counts_by_a_controller_is_left_alone_and_who_scales_by_hand_is_not() -> None:
    there = live()
    there["spec"]["replicas"] = 5
    fields: Json = {"f:spec": {"f:replicas": {}}}
    for manager, left in (("kube-controller-manager", True), ("keda", True), ("kubectl", False)):
        there["metadata"]["managedFields"] = [by(manager, fields, subresource="scale")]
        [one] = drift(declared(), there)
        assert (one.field, one.there, one.left) == ("spec.replicas", "5", left)
    there["metadata"]["managedFields"] = [by("kubectl-edit", fields)]
    assert not drift(declared(), there)[0].left
    # What has a volume is never two writers, whoever counts.
    there["metadata"]["managedFields"] = [by("keda", fields, subresource="scale")]
    assert not drift({**declared(), "kind": "StatefulSet"}, there)[0].left


def test_a_variable_that_nobody_declared_is_found_and_taken_away_and_no_value_is_told() -> None:
    there = live()
    container_of(there)["env"].append({"name": "DEBUG", "value": "hunter2"})
    container_of(there)["env"][0]["value"] = "hunter2"
    found = {one.field: one for one in drift(declared(), there)}
    added = found["spec.template.spec.containers[module].env[DEBUG]"]
    assert added.added
    assert "hunter2" not in repr(found)
    assert additions(declared(), there) == {
        "spec": {
            "template": {
                "spec": {"containers": [{"name": "module", "env": [{"name": "DEBUG", "$patch": "delete"}]}]}
            }
        }
    }
    assert additions(declared(), live()) is None


def test_a_restart_by_kubectl_is_no_drift() -> None:
    there = live()
    there["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    assert drift(declared(), there) == []


def policy(*sources: Json) -> Json:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "jede"},
        "spec": {"podSelector": {"matchLabels": {"m": "jede"}}, "ingress": [{"from": list(sources)}]},
    }


@pytest.mark.requirement("K1", "T4")
def test_a_policy_that_lets_in_more_is_another_one() -> None:
    mine = policy({"podSelector": {"matchLabels": {"m": "cam"}}})
    assert differences(mine, copy.deepcopy(mine)) == []
    wider = copy.deepcopy(mine)
    wider["spec"]["ingress"][0]["from"][0]["namespaceSelector"] = {}
    assert [spelled(one.place) for one in differences(mine, wider)] == ["spec.ingress"]
    more = policy({"podSelector": {"matchLabels": {"m": "cam"}}}, {"podSelector": {}})
    assert differences(mine, more)
    closed = {**mine, "spec": {**mine["spec"], "ingress": []}}
    assert differences(closed, mine)
    all_of_them = copy.deepcopy(mine)
    all_of_them["spec"]["podSelector"] = {}
    assert [spelled(one.place) for one in differences(mine, all_of_them)] == ["spec.podSelector"]


@pytest.mark.parametrize(
    ("one", "same"),
    [("1000m", "1"), ("1073741824", "1Gi"), ("0.5", "500m"), ("1e3", "1k"), ("64Mi", 67108864)],
)
def test_quantities_are_compared_by_value(one: str, same: object) -> None:
    assert quantity(one) == quantity(same)
    assert quantity("1001m") != quantity("1")
    assert quantity("much") is None


WORDS = st.text("abcdefgh", min_size=1, max_size=6)
LEAVES = st.one_of(st.booleans(), st.integers(1, 9), WORDS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(WORDS, inner, min_size=1, max_size=4), st.lists(inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(WORDS, VALUES, min_size=1, max_size=4).map(
    lambda spec: {"kind": "Thing", "metadata": {"name": "it"}, "spec": spec}
)


def leaves(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [one for name, inner in value.items() for one in leaves(inner, (*place, name))]
    if isinstance(value, list):
        return [one for at, inner in enumerate(value) for one in leaves(inner, (*place, at))]
    return [place]


def grown(value: Any) -> Any:
    """With fields of others in every map that is no item of a list."""
    if not isinstance(value, dict):
        return copy.deepcopy(value)
    return {**{name: grown(inner) for name, inner in value.items()}, "zz-of-others": {"a": [1]}}


@given(OBJECTS)
def test_what_others_add_is_theirs(one: Json) -> None:
    assert differences(one, grown(one)) == []


@given(OBJECTS, st.data())
def test_any_changed_value_is_found_where_it_is_and_nowhere_else(one: Json, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(leaves(one["spec"])))
    there = grown(one)
    inner = there["spec"]
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = "another"
    [found] = differences(one, there)
    # A list is owned as a whole.
    cut = next((at for at, step in enumerate(place) if isinstance(step, int)), len(place))
    assert found.place == ("spec", *place[:cut])


@given(OBJECTS, st.data())
def test_whatever_is_taken_away_is_found(one: Json, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(leaves(one["spec"])))
    there = grown(one)
    inner = there["spec"]
    for step in place[:-1]:
        inner = inner[step]
    del inner[place[-1]]
    assert differences(one, there)


@given(st.integers(0, 20), st.integers(1, 10), st.integers(1, 30))
def test_quotas_are_short_where_the_sum_is_above_them(used: int, count: int, most: int) -> None:
    pod = {
        "spec": {
            "containers": [{"resources": {"requests": {"cpu": "500m"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"resources": {"requests": {"cpu": "100"}}},
            ],
        }
    }
    quota = {
        "metadata": {"name": "idi"},
        "spec": {},
        "status": {"hard": {"requests.cpu": str(most)}, "used": {"requests.cpu": f"{used * 1000}m"}},
    }
    assert bool(lacking(pod, count, [quota])) == (used + count > most)
    assert lacking(pod, count, [{**quota, "spec": {"scopes": ["BestEffort"]}}]) == ""
