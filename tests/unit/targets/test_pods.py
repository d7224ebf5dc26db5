"""What a pod says of itself, and what an instance is by three mouths."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from idi.declaration.types import ModuleName, Scale
from idi.parts.clients.kubernetes_pod import trouble
from idi.parts.targets.kubernetes.known import Known
from idi.parts.targets.kubernetes.pods import MODULE, REVISION, SPEC, PodSeen, numbers, pod_seen
from idi.parts.targets.kubernetes.values import (
    Reach,
    Settings,
    file_name,
    release_values,
    secret_of,
    variables,
)
from idi.parts.targets.recorded import document_of, spec_of
from idi.parts.targets.references import needed
from idi.world.types import InstanceId, PeerPort, PortSpec, RevisionSpec, Workload
from tests.support.targets import make_spec

pytestmark = pytest.mark.requirement("K1")

SETTINGS = Settings("junzi", "staging", "junzi-staging", "idi/sidecar@sha256:1")
CANARY = b"canary-5bd1"


def spec(**more: Any) -> RevisionSpec:
    made = make_spec(
        module="jede",
        environment={
            "IDI_MODULE": "jede",
            "CAM_URL": "${peer.cam.url}",
            "WHO": "${instance} on $(HOME)",
            "PASSWORD": "${secret.jede/database}",
            "BUS_URL": "nats://${secret.idi/bus}@${peer.cam.address}",
            "KEY_FILE": "${secret_file.jede/key}",
            "LITERAL": "$${x}",
        },
        **more,
    )
    return replace(
        made,
        ports=(PortSpec("http", "http"), PortSpec("admin", "http")),
        peers=(PeerPort("cam", "http"), PeerPort("sfl", "tcp")),
        workload=Workload("idi/jede@sha256:2", pool="ml", cpu_millicores=100, memory_bytes=64 << 20),
    )


def pod(status: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    its = spec()
    return {
        "metadata": {
            "name": "jede-stable-1",
            "labels": {MODULE: "jede", REVISION: its.revision},
            "annotations": {SPEC: json.dumps(document_of(its))},
            "creationTimestamp": "2026-11-27T12:00:00Z",
            **more.pop("metadata", {}),
        },
        "spec": {"serviceAccountName": "idi-jede", **more.pop("spec", {})},
        "status": {"podIP": "10.90.1.2", **(status or {})},
    }


def test_a_spec_survives_its_annotation() -> None:
    assert spec_of(json.loads(json.dumps(document_of(spec())))) == spec()


def test_numbers_follow_from_the_spec() -> None:
    its = numbers(spec())
    assert its.ports == {"http": 20001, "admin": 20002}
    assert its.mesh == {"http": 20101, "admin": 20102}
    assert its.outbound == {"cam": 20201, "sfl": 20202}


def test_a_pod_describes_itself() -> None:
    seen = pod_seen(pod())
    assert seen is not None
    assert (seen.name, seen.module, seen.address, seen.leaving, seen.failed) == (
        "jede-stable-1",
        "jede",
        "10.90.1.2",
        False,
        False,
    )


@pytest.mark.requirement("S4", "T4")
@pytest.mark.parametrize(
    "made",
    [
        pod(spec={"serviceAccountName": "idi-cam"}),
        pod(spec={"serviceAccountName": "default"}),
        pod(metadata={"annotations": {SPEC: "{}"}}),
        pod(metadata={"annotations": {}}),
        pod(metadata={"labels": {}}),
        pod({"phase": "Failed"}),
        pod({"phase": "Succeeded"}),
    ],
)
def test_what_is_none_of_ours_is_nothing(made: dict[str, Any]) -> None:
    assert pod_seen(made) is None


@pytest.mark.parametrize(
    ("status", "failed", "words"),
    [
        ({}, False, ""),
        (
            {
                "containerStatuses": [
                    {
                        "name": "module",
                        "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no x"}},
                    }
                ]
            },
            True,
            "no x",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "module", "state": {"waiting": {"reason": "ErrImagePull", "message": "net"}}}
                ]
            },
            False,
            "cannot be pulled: net",
        ),
        (
            {
                "containerStatuses": [
                    {
                        "name": "module",
                        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                        "lastState": {"terminated": {"exitCode": 3}},
                    }
                ]
            },
            True,
            "exited with 3 again and again",
        ),
        (
            {
                "containerStatuses": [
                    {"name": "module", "state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
                ]
            },
            False,
            "took more memory than it may have",
        ),
        (
            {
                "initContainerStatuses": [
                    {"name": "sidecar", "state": {"waiting": {"reason": "CreateContainerConfigError"}}}
                ]
            },
            True,
            "its sidecar: ",
        ),
        (
            {
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
                ]
            },
            False,
            "waits for a node: 0/3 nodes",
        ),
        ({"containerStatuses": [{"name": "module", "state": {"running": {}}}]}, False, ""),
    ],
)
def test_why_it_does_not_run(status: dict[str, Any], failed: bool, words: str) -> None:
    found, reason = trouble(status, "module")
    assert found == failed
    assert words in reason
    assert bool(reason) == bool(words)


def seen(**more: Any) -> PodSeen:
    base = PodSeen(InstanceId("jede-stable-1"), ModuleName("jede"), spec().revision, spec(), "10.90.1.2", 0.0)
    return replace(base, **more)


def test_an_instance_is_ready_when_all_three_say_so() -> None:
    known = Known()
    assert known.judge(1.0) is None
    known.reported = (True, "")
    known.proxied = True
    assert known.judge(1.0) is None, "the API server has not spoken of it"
    known.pod = seen()
    first = known.told = known.judge(2.0)
    assert first is not None
    assert (first.state, first.mesh) == ("ready", {"http": 20101, "admin": 20102})
    known.proxied = False
    second = known.told = known.judge(3.0)
    assert second is not None
    assert (second.state, second.reason, second.since) == ("unready", "its sidecar is not connected", 3.0)
    known.proxied, known.reported = True, (False, "/ready: 503")
    third = known.judge(4.0)
    assert third is not None
    assert (third.state, third.reason) == ("unready", "/ready: 503")


def test_without_an_address_it_is_reached_by_nobody() -> None:
    known = Known(pod=seen(address=""), reported=(True, ""), proxied=True)
    made = known.judge(1.0)
    assert made is not None
    assert (made.state, made.mesh) == ("starting", {})


@pytest.mark.requirement("D1")
def test_who_lost_its_address_has_no_traffic_and_stays_known() -> None:
    """A pod whose node was killed: forgotten meanwhile, its proxy would come back to no certificate."""
    known = Known(pod=seen(), reported=(True, ""), proxied=True)
    before = known.told = known.judge(1.0)
    assert before is not None
    known.pod = seen(address="")
    without = known.told = known.judge(2.0)
    assert without is not None
    assert (without.state, without.address, without.mesh) == ("unready", before.address, before.mesh)
    known.pod = seen(address="10.0.9.9")
    after = known.judge(3.0)
    assert after is not None
    assert (after.state, after.address) == ("ready", "10.0.9.9")


def test_who_goes_is_not_brought_back_by_a_report() -> None:
    known = Known(pod=seen(), reported=(True, ""), proxied=True, stopping=True)
    made = known.judge(1.0)
    assert made is not None
    assert made.state == "stopping"
    known.stopping, known.pod = False, seen(leaving=True)
    made = known.judge(2.0)
    assert made is not None
    assert made.state == "stopping"


def test_a_control_that_starts_takes_no_traffic_from_who_had_it() -> None:
    known = Known(pod=seen(ready=True))
    made = known.told = known.judge(1.0)
    assert made is not None
    assert made.state == "ready"
    known.reported = (False, "it died meanwhile")
    after = known.judge(2.0)
    assert after is not None
    assert after.state == "unready"


@pytest.mark.requirement("S1", "S2")
def test_no_secret_is_in_the_values_of_a_release() -> None:
    its = spec()
    values = release_values(SETTINGS, its, 2, Reach(callers=("pas",), gateway=True, calls=("cam",)))
    slot = values["slots"]["stable"]
    assert slot["config"] == {
        "IDI_MODULE": "jede",
        "CAM_URL": "http://127.0.0.1:20201",
        "KEY_FILE": f"/var/run/idi/secrets/{file_name('jede/key')}",
        "LITERAL": "${x}",
    }
    # What the declaration means by $(HOME) is no variable of Kubernetes.
    assert slot["env"] == [{"name": "WHO", "value": "$(IDI_INSTANCE) on $$(HOME)"}]
    assert slot["secrets"] == {
        "env": f"jede-secrets-env-{its.revision}",
        "files": f"jede-secrets-files-{its.revision}",
    }
    given = dict.fromkeys(("jede/database", "idi/bus", "jede/key"), CANARY)
    made = secret_of(SETTINGS, its, given)
    assert [one["metadata"]["name"] for one in made] == [*slot["secrets"].values()]
    assert set(made[0]["data"]) == {"PASSWORD", "BUS_URL"}
    assert all(one["immutable"] for one in made)
    assert CANARY.decode() not in json.dumps(values)


def test_configuration_of_the_version_before_stays_as_long_as_its_pods_may_start() -> None:
    before = replace(spec(), revision="00000000", environment={"A": "1"})  # type: ignore[arg-type]
    values = release_values(SETTINGS, spec(), 2, Reach(), [before])
    assert values["kept"] == [{"A": "1"}]
    assert release_values(SETTINGS, spec(), 2, Reach())["kept"] == []


@pytest.mark.requirement("K2")
def test_where_it_scales_by_itself_nobody_says_how_many() -> None:
    scale = Scale(10, 0.7, 60.0)
    values = release_values(SETTINGS, spec(), 2, Reach(), scale=scale)
    assert values["scale"] == {"min": 2, "max": 10, "cpuPercent": 70, "downAfter_s": 60}
    assert values["slots"]["stable"]["replicas"] is None
    none = release_values(SETTINGS, spec(), 0, Reach(), scale=scale)
    assert (none["scale"], none["slots"]["stable"]["replicas"]) == (None, 0)


def test_variables_that_need_a_secret_are_in_neither() -> None:
    plain, mine = variables(spec(), needed(spec()))
    assert not {"PASSWORD", "BUS_URL"} & {*plain, *mine}
