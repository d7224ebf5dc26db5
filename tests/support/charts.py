"""The charts as the tests use them: values that install, what Helm makes of them, and the programs for it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from idi.api.environments import release_values
from idi.declaration.load import Loaded, load
from idi.parts.clients.helm import charts, document
from tests.support.cluster.programs import PROGRAMS, built, folder_of
from tests.support.scale import need_part

DIGEST = "sha256:" + "0123456789abcdef" * 4
SIDECAR = f"registry.example.com/idi/sidecar@{DIGEST}"
CONTROL = f"registry.example.com/idi/control@{DIGEST}"
NAMESPACE = "junzi-staging"
RUN_S = 60
PROFILES = ("gke", "eks", "aks")
"""Those of charts/profiles."""

Values = dict[str, Any]
Object = dict[str, Any]


def program(name: str) -> Path:
    """`helm` or `kubeconform`, built once per version as the programs of the test cluster are."""
    found = next(one for one in PROGRAMS if one.name == name)
    there = folder_of(found).is_dir() or shutil.which("go")
    need_part(name, there, "it is built with Go, and there is no `go` on PATH")
    return built(found) / name


def slot(revision: str = "1a2b3c4d", **more: Any) -> Values:
    return {"revision": revision, "image": f"registry.example.com/jede@{DIGEST}", "replicas": 2, **more}


def module(name: str = "jede", **changes: Any) -> Values:
    """Values of a module with everything that a release needs, and these changes on top."""
    return {
        "platform": "junzi",
        "environment": "staging",
        "module": name,
        "sidecar": {"image": SIDECAR},
        "slots": {"stable": slot()},
        **changes,
    }


def platform(**changes: Any) -> Values:
    return {"images": {"control": CONTROL, "sidecar": SIDECAR}, **changes}


def on(profile: str) -> Values:
    """An environment on a provider's managed cluster, with all that a declaration may say beside it."""
    images = f"{{control: {CONTROL!r}, sidecar: {SIDECAR!r}}}"
    target = f"context: c, profile: {profile}, gateway: LoadBalancer, images: {images}"
    staging = f"environments:\n  staging:\n    target: {{kubernetes: {{{target}}}}}\n"
    text = f"platform: junzi\nmodules:\n  jede: {{image: i}}\n{staging}"
    found = load(text, environment="staging")
    assert isinstance(found, Loaded), str(found)
    return release_values(found.platform)


def full() -> Values:
    """A module that uses every value, so that every line of the chart is rendered."""
    return module(
        ports=[{"name": "http", "protocol": "http"}, {"name": "admin", "protocol": "tcp"}],
        readiness={"tcp": True, "port": "admin"},
        scale={"min": 1, "max": 4, "cpuPercent": 70},
        pool="ml",
        gpu={"resource": "nvidia.com/gpu", "count": 1},
        priorityClassName="high",
        imagePullSecrets=["registry"],
        strategy="recreate",
        slots={
            "stable": slot(
                replicas=None,
                command=["jede", "--data", "<&> $$(HOME)"],
                mounts=[{"path": "/etc/idi/accounts", "secret": "jede-accounts"}],
                spec='{"module": "jede", "odd": "<&>\\u2028 \'\\" $(PORT)"}',
                env=[{"name": "CAM_URL", "value": "http://127.0.0.1:20201"}],
                secrets={"env": "jede-secrets-1", "files": "jede-files-1"},
                config={"LOG_LEVEL": "info"},
            ),
            "candidate": slot("1a2b3c4e", replicas=1, config={"LOG_LEVEL": "debug"}),
        },
        kept=[{"LOG_LEVEL": "warning"}],
        networkPolicy={
            "callers": ["pas", "cam"],
            "gateway": True,
            "control": True,
            "calls": ["dere"],
            "externals": [{"port": 5432, "cidr": "10.1.2.3/32"}, {"port": 443}],
            "dns": {"cidrs": ["10.90.0.1/32"]},
            "scrapers": ["monitoring"],
        },
    )


def storing(**changes: Any) -> Values:
    """A module with a volume."""
    stored = {"stable": slot(replicas=1)}
    return module("sfl", storage={"size": "1Gi", "class": None}, slots=stored, **changes)


def whole() -> Values:
    """An environment that uses every value."""
    part = {"pool": "general", "priorityClassName": "high"}
    return platform(
        images={
            "control": CONTROL,
            "sidecar": SIDECAR,
            "relay": SIDECAR,
            "xds": CONTROL,
            "pullSecrets": ["registry"],
        },
        roles={"operator": {"users": ["erin"], "groups": ["operators"]}},
        control={
            "args": ["--env", "staging"],
            "health": "/healthz",
            **part,
            "sealKey": {"secret": "seal", "key": "key"},
        },
        xds={"replicas": 2, "args": ["--verbose"], **part},
        gateway={
            "replicas": 3,
            "service": {"type": "LoadBalancer", "annotations": {"a.example.com/b": "c"}},
            "externals": [{"port": 443}],
            **part,
        },
        networkPolicy={"scrapers": ["monitoring"], "dns": {"cidrs": ["10.90.0.1/32"]}},
        priorityClasses={"create": True},
    )


def helm(*words: str, values: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(program("helm")), *words, "-f", "-"],
        input=document(values),
        capture_output=True,
        text=True,
        timeout=RUN_S,
    )


def text(chart: str, values: Mapping[str, Any], release: str = "") -> str:
    """What the chart makes of the values, as Helm writes it."""
    name = release or (values["module"] if chart == "module" else "idi")
    done = helm("template", name, str(charts() / chart), f"--namespace={NAMESPACE}", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(chart: str, values: Mapping[str, Any]) -> list[Object]:
    return [one for one in yaml.safe_load_all(text(chart, values)) if one]


def refused(chart: str, values: Mapping[str, Any]) -> str:
    """What Helm says of values that it does not take."""
    name = values.get("module", "idi")
    done = helm("template", name, str(charts() / chart), f"--namespace={NAMESPACE}", values=values)
    assert done.returncode != 0, "the chart takes it"
    return done.stderr


def one(objects: list[Object], kind: str, name: str = "") -> Object:
    found = [each for each in objects if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def pods(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Every pod template by the name of what makes its pods."""
    for each in objects:
        if "template" in each.get("spec", {}):
            yield each["metadata"]["name"], each["spec"]["template"]


def containers(template: Object) -> Iterator[Object]:
    yield from template["spec"].get("initContainers", ())
    yield from template["spec"]["containers"]
