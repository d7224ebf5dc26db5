"""Whose the number of a module's pods is: IDI's, or that of an autoscaler which nobody declared here."""

from __future__ import annotations

from typing import Any

import pytest

from idi.parts.targets.kubernetes.managers import SCALE_MANAGER, counted_elsewhere

pytestmark = pytest.mark.requirement("K1")

HPA = ("kube-controller-manager", "Update", "scale")
HELM = ("helm", "Apply", "")
KEPT = (SCALE_MANAGER, "Apply", "")
PERSON = ("kubectl", "Update", "scale")


def deployment(*owners: tuple[str, str, str], scales: bool = False) -> dict[str, Any]:
    """Owners of the number, the latest last."""
    fields = [
        {
            "manager": manager,
            "operation": operation,
            "subresource": subresource,
            "time": f"2026-01-01T00:00:{at:02d}Z",
            "fieldsV1": {"f:spec": {"f:replicas": {}}},
        }
        for at, (manager, operation, subresource) in enumerate(owners)
    ]
    annotations = {"idi.dev/scales-to": "4"} if scales else {"idi.dev/count": "2"}
    return {"metadata": {"annotations": annotations, "managedFields": fields}, "spec": {"replicas": 3}}


@pytest.mark.parametrize(
    ("owners", "scales", "elsewhere"),
    [
        pytest.param([HELM], False, False, id="as declared"),
        pytest.param([HPA], False, True, id="an autoscaler took it"),
        pytest.param([KEPT, HPA], False, True, id="it was kept for an autoscaler"),
        pytest.param([HPA, HELM], False, False, id="both say the same, or ours was switched off"),
        pytest.param([HELM, HPA], False, False, id="they agree"),
        pytest.param([HPA], True, False, id="ours, declared"),
        pytest.param([PERSON], False, False, id="a person"),
        pytest.param([KEPT], False, False, id="raised by us"),
        pytest.param([], False, False, id="nobody"),
    ],
)
def test_whose_the_number_is(owners: list[tuple[str, str, str]], scales: bool, elsewhere: bool) -> None:
    assert counted_elsewhere(deployment(*owners, scales=scales)) is elsewhere
