"""What Helm's words are made into, how values are written for it, and where the program and the charts are found."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import idi
from idi.parts.clients.helm import Reach, charts, document, find
from idi.parts.clients.helm_errors import refusal
from idi.parts.errors import PartError

ROOT = Path(__file__).resolve().parents[3]

SAID = {
    "quota": (
        'Error: persistentvolumeclaims "sfl-data" is forbidden: exceeded quota: idi, requested: '
        "requests.storage=2Gi, used: requests.storage=5Gi, limited: requests.storage=6Gi",
        "the quota idi of the namespace is used up: 5Gi of 6Gi requests.storage in use, 2Gi more asked for.",
    ),
    "forbidden": (
        'Error: query: failed to query with labels: secrets is forbidden: User "erin" cannot list resource "secrets" '
        'in API group "" in the namespace "junzi-staging"',
        'the cluster forbids it: User "erin" may not list secrets here.',
    ),
    "busy": ("Error: another operation (install/upgrade/rollback) is in progress", "another Helm is at work"),
    "missing": ("Error: release: not found", "there is no such release"),
    "namespace": ('Error: create: failed to create: namespaces "nowhere" not found', "no namespace nowhere"),
    "conflict": (
        "level=WARN msg=x\nError: UPGRADE FAILED: conflict occurred while applying object a/b apps/v1: "
        'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1:\n- .spec.replicas',
        'somebody else has set the same field: conflict with "kubectl" using apps/v1: - .spec.replicas.',
    ),
    "unreachable": (
        'Error: Kubernetes cluster unreachable: Get "https://127.0.0.1:1/version": dial tcp 127.0.0.1:1: connect: '
        "connection refused",
        "the API server cannot be reached",
    ),
    "late": (
        "Error: UPGRADE FAILED: resource Deployment/ns/jede-stable not ready. status: InProgress\n"
        "context deadline exceeded",
        "it was not ready in time",
    ),
    "other": ("Error: something odd", "Cannot install jede: something odd"),
}


@pytest.mark.parametrize("kind", SAID)
def test_what_helm_says_is_told_with_its_meaning(kind: str) -> None:
    said, told = SAID[kind]
    error = refusal("install jede", said)
    assert error.kind == kind
    assert told in error.message
    assert error.retryable is (kind in ("busy", "unreachable", "late"))
    assert error.way_out or kind == "other"
    assert "Error:" not in error.message
    assert "level=" not in error.message


def test_findings_in_values_are_told_one_by_one_and_no_more_than_six() -> None:
    head = (
        "Error: values don't meet the specifications of the schema(s) in the following chart(s):\nmodule:\n"
    )
    told = refusal("install jede", head + "".join(f"- at '/slots/{at}': wrong\n" for at in range(8)))
    assert told.kind == "values"
    assert "slots.0: wrong; slots.1: wrong" in told.message
    assert "and 2 more" in told.message
    assert "slots.6" not in told.message


def test_what_is_long_is_shortened() -> None:
    assert len(refusal("install jede", "Error: " + "x" * 10_000).message) < 700
    assert refusal("install jede", "").message == "Cannot install jede: helm failed without a word"


@given(st.text(), st.text())
def test_values_are_json_and_yaml_alike(key: str, value: str) -> None:
    text = document({key: value})
    assert json.loads(text) == {key: value}
    assert yaml.safe_load(text) == {key: value}


def test_the_program_is_the_one_that_is_named(tmp_path: Path) -> None:
    program = tmp_path / "helm"
    with pytest.raises(PartError, match="no helm on PATH"):
        find({"PATH": str(tmp_path)})
    program.touch(0o755)
    assert find({"PATH": str(tmp_path)}) == program
    other = tmp_path / "helm4"
    with pytest.raises(PartError, match="is no program"):
        find({"PATH": str(tmp_path), "IDI_HELM": str(other)})
    other.touch(0o755)
    assert find({"PATH": str(tmp_path), "IDI_HELM": str(other)}) == other


def test_a_cluster_is_named_by_flags_or_not_at_all() -> None:
    assert Reach().flags() == []
    assert Reach(Path("/k"), "staging").flags() == ["--kubeconfig=/k", "--kube-context=staging"]


def test_the_charts_are_found_in_a_checkout_and_in_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert charts() == ROOT / "charts"
    package = tmp_path / "site-packages" / "idi"
    (package / "charts" / "module").mkdir(parents=True)
    monkeypatch.setattr(idi, "__file__", str(package / "__init__.py"))
    with pytest.raises(PartError, match="no charts"):
        charts()
    (package / "charts" / "module" / "Chart.yaml").touch()
    assert charts() == package / "charts"
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert told["wheel"]["force-include"] == {"charts": "idi/charts"}
    assert "charts" in told["sdist"]["include"]
