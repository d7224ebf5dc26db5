"""What the charts make of values and what they refuse; no cluster is asked here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import yaml

from idi.parts.clients.helm import charts
from tests.support.charts import (
    PROFILES,
    Values,
    containers,
    full,
    helm,
    module,
    on,
    one,
    platform,
    pods,
    refused,
    rendered,
    slot,
    storing,
    text,
    whole,
)

CASES: dict[str, tuple[str, Callable[[], Values]]] = {
    "a module": ("module", module),
    "a module with everything": ("module", full),
    "a module that stores": ("module", storing),
    "an environment": ("platform", platform),
    "an environment with everything": ("platform", whole),
    **{f"an environment on {name}": ("platform", partial(on, name)) for name in PROFILES},
}
each_case = pytest.mark.parametrize("case", CASES)


def objects_of(case: str) -> list[Any]:
    chart, values = CASES[case]
    return rendered(chart, values())


@each_case
def test_helm_finds_nothing_to_complain_of(case: str) -> None:
    chart, values = CASES[case]
    done = helm("lint", "--strict", str(charts() / chart), values=values())
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


@each_case
def test_the_same_values_make_the_same_text(case: str) -> None:
    chart, values = CASES[case]
    assert len({text(chart, values()) for _ in range(3)}) == 1


@each_case
def test_no_key_is_there_twice(case: str) -> None:
    class Strict(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            assert len(keys) == len(set(keys)), keys
            return super().construct_mapping(node, deep)

    chart, values = CASES[case]
    names = []
    for made in yaml.load_all(text(chart, values()), Strict):
        if made:
            names.append((made["kind"], made["metadata"]["name"]))
    assert len(names) == len(set(names))


@pytest.mark.requirement("K1", "T4")
@each_case
def test_every_container_is_of_the_restricted_profile(case: str) -> None:
    seen = 0
    for _, template in pods(objects_of(case)):
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not any(spec.get(host) for host in ("hostNetwork", "hostPID", "hostIPC"))
        for container in containers(template):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False
            assert own["readOnlyRootFilesystem"] is True
            assert own["capabilities"] == {"drop": ["ALL"]}
            assert own["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not own.get("privileged")
            assert container["resources"]["requests"]["memory"]
            assert "@sha256:" in container["image"]
            seen += 1
        allowed = {"emptyDir", "configMap", "secret", "projected", "persistentVolumeClaim"}
        assert all(set(volume) - {"name"} <= allowed for volume in spec["volumes"])
    assert seen


@pytest.mark.requirement("S4", "T4")
@each_case
def test_only_who_talks_to_kubernetes_has_a_token_for_it(case: str) -> None:
    for name, template in pods(objects_of(case)):
        assert template["spec"]["automountServiceAccountToken"] is (name in ("control", "xds"))
    for account in objects_of(case):
        if account["kind"] == "ServiceAccount":
            assert account["automountServiceAccountToken"] is False


@pytest.mark.requirement("K1")
def test_a_pod_of_a_module_is_as_agreed() -> None:
    values = full()
    made = one(rendered("module", values), "Deployment", "jede-stable")
    template = made["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert labels["idi.dev/module"] == "jede"
    assert labels["idi.dev/slot"] == "stable"
    assert labels["idi.dev/revision"] == "1a2b3c4d"
    assert labels["app.kubernetes.io/name"] == "jede"
    assert labels["app.kubernetes.io/part-of"] == "junzi"
    assert template["metadata"]["annotations"]["idi.dev/spec"] == values["slots"]["stable"]["spec"]
    spec = template["spec"]
    assert spec["serviceAccountName"] == "idi-jede"
    [sidecar], [running] = spec["initContainers"], spec["containers"]
    assert (sidecar["name"], running["name"]) == ("sidecar", "module")
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["command"] == ["python", "-m", "idi.agent"]
    told = {entry["name"]: entry.get("value") for entry in sidecar["env"]}
    assert told["IDI_CONTROL"] == "https://control.junzi-staging.svc:8443"
    agent = json.loads(told["IDI_AGENT"])
    assert agent["module"] == "jede"
    assert agent["ports"] == {"http": 20001, "admin": 20002}
    assert agent["grace_s"] == 10
    assert agent["readiness"]["port"] == "admin"
    mounts = {mount["name"]: mount["mountPath"] for mount in sidecar["volumeMounts"]}
    assert mounts["proxy"] == "/etc/idi/proxy"
    assert mounts["token"] == "/var/run/idi/token"
    assert mounts["run"] == "/run/idi"
    assert not {"proxy", "token", "run"} & {mount["name"] for mount in running["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    [token] = volumes["token"]["projected"]["sources"]
    assert token["serviceAccountToken"] == {"audience": "idi", "expirationSeconds": 600, "path": "token"}
    assert running["lifecycle"]["preStop"] == {"httpGet": {"path": "/stopping", "port": 20000}}
    assert spec["terminationGracePeriodSeconds"] == 10 + 10 + 15
    assert running["env"][0]["name"] == "IDI_INSTANCE"
    assert running["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert running["resources"]["requests"]["memory"] == "64Mi"


def test_a_pod_stays_longer_for_who_needs_longer() -> None:
    made = one(rendered("module", module(grace_s=30.5, drain_s=5)), "Deployment")
    assert made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 31 + 5 + 15


@pytest.mark.requirement("K2")
def test_under_an_autoscaler_nobody_else_sets_the_number() -> None:
    objects = rendered("module", full())
    assert "replicas" not in one(objects, "Deployment", "jede-stable")["spec"]
    assert one(objects, "Deployment", "jede-candidate")["spec"]["replicas"] == 1
    scaler = one(objects, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == "jede-stable"
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (1, 4)
    [metric] = scaler["metrics"]
    assert metric["containerResource"]["container"] == "module"
    assert metric["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 70}


def test_a_number_that_is_given_is_kept_without_an_autoscaler() -> None:
    objects = rendered("module", module(scale={"min": 1, "max": 4, "cpuPercent": 70}))
    assert one(objects, "Deployment")["spec"]["replicas"] == 2
    assert not [each for each in objects if each["kind"] == "HorizontalPodAutoscaler"]


@pytest.mark.requirement("K3")
def test_a_pool_is_chosen_and_its_taint_tolerated() -> None:
    spec = one(rendered("module", full()), "Deployment", "jede-stable")["spec"]["template"]["spec"]
    [term] = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term["matchExpressions"] == [{"key": "idi.dev/pool", "operator": "In", "values": ["ml"]}]
    assert spec["tolerations"] == [
        {"key": "idi.dev/pool", "operator": "Equal", "value": "ml", "effect": "NoSchedule"}
    ]
    anywhere = one(rendered("module", module()), "Deployment")["spec"]["template"]["spec"]
    assert "nodeAffinity" not in anywhere["affinity"]


def test_configuration_is_named_by_its_content_and_may_stay() -> None:
    first = module(slots={"stable": slot(config={"LOG_LEVEL": "info"})})
    second = module(slots={"stable": slot(config={"LOG_LEVEL": "debug"})}, kept=[{"LOG_LEVEL": "info"}])
    before, after = rendered("module", first), rendered("module", second)
    config = one(before, "ConfigMap")
    assert config["immutable"] is True
    kept = {each["metadata"]["name"] for each in after if each["kind"] == "ConfigMap"}
    [used] = [
        source["configMapRef"]["name"]
        for _, template in pods(after)
        for source in template["spec"]["containers"][0]["envFrom"]
    ]
    assert kept == {config["metadata"]["name"], used}
    assert used != config["metadata"]["name"]


def test_two_slots_with_one_content_share_it() -> None:
    shared = {"LOG_LEVEL": "info"}
    slots = {"stable": slot(config=shared), "candidate": slot("1a2b3c4e", config=shared)}
    assert one(rendered("module", module(slots=slots)), "ConfigMap")["data"] == shared


@pytest.mark.parametrize(
    "value",
    [
        "",
        "12",
        "true",
        "null",
        "{{ .Values }}",
        "a: b # c",
        "'\"",
        "two\nlines\t",
        "$(PORT)",
        "\\\x01\u2028é😀",
    ],
)
def test_every_value_arrives_as_it_is(value: str) -> None:
    values = module(
        slots={"stable": slot(env=[{"name": "ODD", "value": value}], config={"ODD_TOO": value}, spec=value)}
    )
    objects = rendered("module", values)
    assert one(objects, "ConfigMap")["data"] == {"ODD_TOO": value}
    [(_, template)] = pods(objects)
    assert template["spec"]["containers"][0]["env"][-1] == {"name": "ODD", "value": value}
    assert template["metadata"].get("annotations", {}).get("idi.dev/spec", "") == value


@pytest.mark.requirement("S2", "T4")
def test_a_secret_is_named_and_never_a_value() -> None:
    for case in CASES:
        assert not [each for each in objects_of(case) if each["kind"] == "Secret"]
    [(_, template), _] = pods(rendered("module", full()))
    [running] = template["spec"]["containers"]
    assert {"secretRef": {"name": "jede-secrets-1"}} in running["envFrom"]
    assert {"name": "secrets", "mountPath": "/var/run/idi/secrets", "readOnly": True} in running[
        "volumeMounts"
    ]


def test_a_slot_has_its_own_words_and_secrets_that_may_change() -> None:
    [(_, template), (_, other)] = pods(rendered("module", full()))
    [running] = template["spec"]["containers"]
    assert running["command"] == ["jede", "--data", "<&> $$(HOME)"]
    assert {"name": "mount-0", "mountPath": "/etc/idi/accounts", "readOnly": True} in running["volumeMounts"]
    assert {"name": "mount-0", "secret": {"secretName": "jede-accounts", "defaultMode": 0o440}} in template[
        "spec"
    ]["volumes"]
    assert "command" not in other["spec"]["containers"][0]
    assert not [volume for volume in other["spec"]["volumes"] if volume["name"].startswith("mount")]


@pytest.mark.parametrize("lets_in", [True, False])
def test_control_reaches_a_module_only_where_it_is_said(lets_in: bool) -> None:
    policy = one(rendered("module", module(networkPolicy={"control": lets_in})), "NetworkPolicy", "jede")
    mesh = [
        source
        for rule in policy["spec"]["ingress"]
        for source in rule["from"]
        if {"protocol": "TCP", "port": 20101} in rule["ports"]
    ]
    control = {"podSelector": {"matchLabels": {"idi.dev/part": "control"}}}
    assert (control in mesh) is lets_in


def test_who_stores_is_alone_and_keeps_what_it_stored() -> None:
    objects = rendered("module", storing())
    made = one(objects, "StatefulSet", "sfl-stable")["spec"]
    assert made["replicas"] == 1
    assert made["podManagementPolicy"] == "Parallel"
    claim = one(objects, "PersistentVolumeClaim", "sfl-data")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    told = {entry["name"]: entry.get("value") for entry in made["template"]["spec"]["containers"][0]["env"]}
    assert told["IDI_DATA_DIR"] == "/data"


def test_rolling_takes_nobody_away_first() -> None:
    made = one(rendered("module", module()), "Deployment")["spec"]
    assert made["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": "25%"}
    assert one(rendered("module", full()), "Deployment", "jede-stable")["spec"]["strategy"] == {
        "type": "Recreate"
    }


def test_one_instance_holds_up_no_node() -> None:
    def budgets(**changes: Any) -> int:
        return sum(each["kind"] == "PodDisruptionBudget" for each in rendered("module", module(**changes)))

    assert budgets(slots={"stable": slot(replicas=1)}) == 0
    assert budgets() == 1
    assert budgets(slots={"stable": slot(replicas=None)}, scale={"min": 1, "max": 4, "cpuPercent": 70}) == 1
    assert budgets(slots={"stable": slot(replicas=1), "candidate": slot("1a2b3c4e", replicas=1)}) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": 1}, "additional properties 'colour' not allowed"),
        ({"slots": {"stable": slot(replica=1)}}, "additional properties 'replica' not allowed"),
        ({"slots": {"stable": {"revision": "1a2b3c4d"}}}, "missing property 'image'"),
        ({"slots": {"stable": slot("latest")}}, "does not match pattern"),
        ({"slots": {"stable": slot(env=[{"name": "PORT", "value": "1"}])}}, "'not' failed"),
        ({"resources": {"limits": {"memoy": "1Gi"}}}, "additional properties 'memoy' not allowed"),
        ({"ports": []}, "minItems"),
        ({"slots": {"stable": slot(mounts=[{"path": "/etc/idi/proxy", "secret": "s"}])}}, "'not' failed"),
        ({"slots": {"stable": slot(mounts=[{"path": "/data", "secret": "s"}])}}, "does not match pattern"),
        ({"slots": {"stable": slot(config={"ODD": "\x85"})}}, "does not match pattern"),
        ({"scale": {"min": 1, "max": 4}}, "missing property 'cpuPercent'"),
        ({"networkPolicy": {"caller": []}}, "additional properties 'caller' not allowed"),
        ({"scale": {"min": 3, "max": 2, "cpuPercent": 70}}, "below scale.min"),
        ({"storage": {"size": "1Gi"}}, "never have two writers"),
        (
            {"scale": {"min": 1, "max": 2, "cpuPercent": 70}, "resources": {"requests": {"cpu": None}}},
            "resources.requests.cpu has to be given",
        ),
        ({"module": "control"}, "'not' failed"),
    ],
)
def test_a_mistake_in_a_modules_values_is_refused(change: Values, says: str) -> None:
    assert says in refused("module", module(**change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gatway": {}}, "additional properties 'gatway' not allowed"),
        ({"images": {"control": "idi/control"}}, "missing property 'sidecar'"),
        ({"gateway": {"service": {"type": "Loadbalancer"}}}, "value must be one of"),
        ({"roles": {"admin": {}}}, "additional properties 'admin' not allowed"),
        ({"quota": {"pods": "many"}}, "does not match pattern"),
        ({"control": {"replicas": 2}}, "additional properties 'replicas' not allowed"),
    ],
)
def test_a_mistake_in_an_environments_values_is_refused(change: Values, says: str) -> None:
    assert says in refused("platform", platform(**change))


def test_a_release_is_named_as_its_module() -> None:
    done = helm("template", "cam", str(charts() / "module"), values=module())
    assert "a module's release is named as the module" in done.stderr


def test_xds_is_control_where_there_are_no_replicas() -> None:
    none = rendered("platform", platform(xds={"replicas": 0}))
    assert one(none, "Service", "xds")["spec"]["selector"] == {"idi.dev/part": "control"}
    assert one(rendered("platform", whole()), "Service", "xds")["spec"]["selector"] == {"idi.dev/part": "xds"}


@pytest.mark.parametrize("chart", ["module", "platform"])
def test_every_value_is_in_the_table_of_the_readme(chart: str) -> None:
    folder = charts() / chart
    known = json.loads((folder / "values.schema.json").read_text())["properties"]
    told = (folder / "README.md").read_text()
    words = set(re.findall(r"`\.?([A-Za-z_]+)", told))
    assert not [name for name in known if name not in words and name != "global"]


@pytest.mark.parametrize("chart", ["module", "platform"])
def test_the_schema_is_closed_everywhere(chart: str) -> None:
    schema = json.loads((charts() / chart / "values.schema.json").read_text())
    open_maps = {"config", "kept", "annotations", "quota", "global"}

    def walk(node: Any, name: str) -> None:
        if isinstance(node, dict):
            if "properties" in node:
                assert node.get("additionalProperties") is False, name
            elif node.get("type") in ("object", ["object", "null"]):
                assert name in open_maps, name
            for key, value in node.items():
                walk(value, name if key in ("items", "properties", "additionalProperties") else key)

    walk(schema, "")


@pytest.mark.requirement("K4")
@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_gives_the_gateway_a_load_balancer_and_names(name: str) -> None:
    objects = rendered("platform", on(name))
    service = one(objects, "Service", "gateway")
    assert service["spec"]["type"] == "LoadBalancer"
    # Limits are counted by a client's address.
    assert service["spec"]["externalTrafficPolicy"] == "Local"
    annotations = service["metadata"]["annotations"]
    assert annotations
    assert all(isinstance(value, str) for value in annotations.values())
    declared = yaml.safe_load((charts() / "profiles" / f"{name}.yaml").read_text())
    [egress] = [
        one(objects, "NetworkPolicy", "idi-gateway")["spec"]["egress"][0]["to"],
    ]
    blocks = [peer["ipBlock"]["cidr"] for peer in egress if "ipBlock" in peer]
    assert sorted(blocks) == sorted(declared["networkPolicy"]["dns"]["cidrs"])


def test_the_profiles_are_those_that_can_be_declared() -> None:
    files = {path.stem for path in (charts() / "profiles").glob("*.yaml")}
    assert files == set(PROFILES)
