"""What an environment asks a cluster for, held against what the charts ask for."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from idi.declaration.demand import (
    CONTROL,
    GATEWAY,
    GATEWAYS,
    GIB,
    MIB,
    QUOTA,
    SIDECAR,
    UNDECLARED,
    UNDECLARED_QUOTA,
    XDS,
    XDSES,
    Demand,
    cpu_text,
    least,
    memory_text,
    most,
    pod,
    quota_of,
)
from idi.declaration.load import Loaded, load
from idi.declaration.types import KubernetesTarget, Platform
from idi.parts.clients.helm import charts

pytestmark = pytest.mark.requirement("K3")
UNITS = {"m": 1, "Mi": MIB, "Gi": GIB}


def values(chart: str) -> Any:
    return yaml.safe_load((charts() / chart / "values.yaml").read_text())


def number(text: str) -> int:
    """In bytes, or in thousandths of a core."""
    end = text.lstrip("0123456789")
    return int(text.removesuffix(end)) * UNITS[end]


def asked(resources: Any) -> tuple[int, int, int]:
    requests, limits = resources["requests"], resources["limits"]
    return number(requests["cpu"]), number(requests["memory"]), number(limits["memory"])


def figures(demand: Demand) -> tuple[int, int, int]:
    return demand.cpu_millicores, demand.memory_bytes, demand.memory_limit_bytes


def test_the_figures_are_those_of_the_charts() -> None:
    platform, module = values("platform"), values("module")
    assert figures(CONTROL) == asked(platform["control"]["resources"])
    assert CONTROL.storage_bytes == number(platform["control"]["storage"]["size"])
    assert figures(GATEWAY) == asked(platform["gateway"]["resources"])
    assert platform["gateway"]["replicas"] == GATEWAYS
    assert figures(XDS) == asked(platform["xds"]["resources"])
    assert platform["xds"]["replicas"] == XDSES
    assert figures(SIDECAR) == asked(module["sidecar"]["resources"])
    assert figures(UNDECLARED) == asked(module["resources"])
    # Whoever adds a part adds what it asks for.
    parts = {name for name, own in platform.items() if isinstance(own, dict) and "resources" in own}
    assert parts == {"control", "xds", "gateway"}
    quota = platform["quota"]
    assert number(quota["limits.memory"]) == UNDECLARED_QUOTA.memory_limit_bytes
    assert int(quota["persistentvolumeclaims"]) == UNDECLARED_QUOTA.claims
    assert number(quota["requests.storage"]) == UNDECLARED_QUOTA.storage_bytes
    assert int(quota["requests.cpu"]) * 1000 == QUOTA.cpu_millicores
    assert number(quota["requests.memory"]) == QUOTA.memory_bytes
    assert int(quota["pods"]) == QUOTA.pods


def staging(modules: str, target: str = "") -> Platform:
    environment = f"environments:\n  staging:\n    target: {{kubernetes: {{context: c{target}}}}}\n"
    text = f"platform: x\nmodules:\n{modules}\n{environment}"
    found = load(text, environment="staging")
    assert isinstance(found, Loaded), str(found)
    return found.platform


def test_what_has_to_be_there_at_once_and_what_there_may_be() -> None:
    platform = staging(
        "  a: {image: i, instances: 4, scale: {max: 9, cpu: 70%}, resources: {cpu: 1, memory: 1GiB}}\n"
        "  b: {image: i, storage: {size: 10GiB}}\n"
        "  c: {image: i, release: {strategy: recreate}, resources: {memory: 4GiB}}"
    )
    a, b, c = (pod(module) for module in platform.modules.values())
    assert (a.cpu_millicores, a.memory_bytes) == (1020, 1120 * MIB)
    assert (b.cpu_millicores, b.memory_bytes) == (120, 160 * MIB)
    assert (c.cpu_millicores, c.memory_bytes, c.memory_limit_bytes) == (120, 4192 * MIB, 4352 * MIB)
    fixed = CONTROL + GATEWAY * 2 + XDS * 2 + b + c
    # One pod more, of what rolls: neither b, which stores, nor c, which ends first.
    assert least(platform).pods == (fixed + a * 5).pods == 12
    assert least(platform).cpu_millicores == (fixed + a * 5).cpu_millicores
    assert least(platform).memory_bytes == (fixed + a * 5).memory_bytes
    assert (least(platform).claims, least(platform).storage_bytes) == (2, 15 * GIB)
    # Nine, and three more while they roll; a gateway more.
    assert most(platform).cpu_millicores == (fixed + GATEWAY + XDS + a * 12).cpu_millicores
    assert most(platform).pods == 21


def test_a_quota_that_is_not_declared_is_the_charts() -> None:
    platform = staging("  a: {image: i}", ", quota: {pods: 9}")
    assert isinstance(platform.target, KubernetesTarget)
    found = quota_of(platform.target)
    assert (found.cpu_millicores, found.memory_bytes, found.pods) == (20_000, 40 * GIB, 9)


def test_figures_are_texts_that_a_declaration_takes() -> None:
    assert [cpu_text(value) for value in (250, 2000, 2600)] == ["250m", "2", "2600m"]
    assert [memory_text(value) for value in (1, 300 * MIB, 2 * GIB)] == ["1MiB", "300MiB", "2GiB"]
