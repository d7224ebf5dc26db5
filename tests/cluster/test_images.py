"""The images run where they are to run: nothing but their own user, no root to write to, no capability."""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.builds import BUILD_S, Built, Images, arguments_of, bases_of, build
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.images import digest
from tests.support.cluster.layout import API, REGISTRY_PORT, cache
from tests.support.cluster.objects import LOCKED, PORT, Namespace, container
from tests.support.scale import scale
from tools.image_context import IDI, NAMES, ROOT, STANDINS, Context

MIB = 1 << 20
POD_S = 90.0
"""The first to use an image pulls and unpacks it."""
MOST_OF_ITS_OWN = {
    "control": 130,
    "sidecar": 50,
    "relay": 20,
    "standin-python": 1,
    "standin-node": 1,
    "standin-go": 4,
}
"""MiB that a node pulls beside the base."""
MOST_OF_IDI = 3
AGAIN = ("sidecar", "standin-python", "standin-node")
"""Built a second time with the short counts."""
FIND = (
    "from {0} import {1}; import subprocess; print(subprocess.check_output([{1}.find(), '{2}'], text=True))"
)
AGENT = """
import pkgutil
from importlib import import_module, util
import idi.parts.gateway.envoy.admin
if util.find_spec("idi.agent"):
    for found in pkgutil.walk_packages(import_module("idi.agent").__path__, "idi.agent."):
        import_module(found.name)
print("imported")
"""
"""Every module of the agent: the image has no package for one that needs it."""

SAYS: Mapping[str, Mapping[str, tuple[list[str], str]]] = {
    "control": {
        "command": (["idi", "--version"], r"^idi \d"),
        "control": (["python", "-m", "idi.control", "--help"], "usage: python -m idi.control"),
        "all": (
            [
                "python",
                "-c",
                "import idi.control.main, idi.control.compose, idi.parts.gateway.envoy.plane; print('all')",
            ],
            "all",
        ),
        "openbao": (
            ["python", "-c", FIND.format("idi.parts.secrets.openbao.binary", "BAO", "version")],
            r"OpenBao v\d",
        ),
    },
    "sidecar": {
        "agent": (["python", "-c", AGENT], "imported"),
        "envoy": (
            ["python", "-c", FIND.format("idi.parts.gateway.envoy.binary", "ENVOY", "--version")],
            r"version: \w+/1\.\d+",
        ),
    },
    "relay": {
        "relay": (["python", "-c", "import idi.relay.__main__; print('imported')"], "imported"),
        "nats": (
            ["python", "-c", FIND.format("idi.parts.bus.nats.binary", "NATS", "--version")],
            r"nats-server: v\d",
        ),
    },
}
"""What is run in each, and what it prints then."""


@pytest.fixture
def restricted(namespace: Namespace, kube: Client) -> Namespace:
    """A namespace that admits no pod but a locked-up one; its pods don't say who they are, so their images must."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kube.api.patch(f"/api/v1/namespaces/{namespace.name}", {"metadata": {"labels": labels}})
    return namespace


LOCKED_POD = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def runs(name: str, image: str, words: list[str]) -> dict[str, Any]:
    return {"name": name, "image": image, "command": words, "securityContext": LOCKED}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", IDI)
@pytest.mark.requirement("K1")
def test_an_image_of_idi_runs_locked_up(restricted: Namespace, images: Mapping[str, str], name: str) -> None:
    said = SAYS[name]
    containers = [runs(one, images[name], words) for one, (words, _) in said.items()]
    restricted.pod(name, restartPolicy="Never", securityContext=LOCKED_POD, containers=containers)
    ended = restricted.await_ended(name, POD_S)
    logs = {one: restricted.kube.kubectl("-n", restricted.name, "logs", name, "-c", one) for one in said}
    assert ended["status"]["phase"] == "Succeeded", logs
    assert {one for one, (_, wanted) in said.items() if not re.search(wanted, logs[one])} == set(), logs


@pytest.mark.timeout(400)
def test_control_has_the_helm_that_was_built(
    own: Cluster, restricted: Namespace, images: Mapping[str, str]
) -> None:
    if "helm" not in own.programs:
        pytest.skip("tests/support/cluster/programs.py builds no helm")
    helm = runs("helm", images["control"], ["helm", "version"])
    restricted.pod("helm", restartPolicy="Never", securityContext=LOCKED_POD, containers=[helm])
    ended = restricted.await_ended("helm", POD_S)
    assert ended["status"]["phase"] == "Succeeded", restricted.kube.kubectl(
        "-n", restricted.name, "logs", "helm"
    )


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", STANDINS)
@pytest.mark.requirement("K1")
def test_a_stand_in_runs_locked_up_and_answers_on_loopback(
    restricted: Namespace, images: Mapping[str, str], name: str
) -> None:
    variables = {"PORT": str(PORT), "IDI_MODULE": "jede"}
    module = {
        "name": "module",
        "image": images[name],
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "securityContext": LOCKED,
    }
    asking = container("asking", restricted.tool, "serve", ":8081")
    restricted.pod(name, securityContext=LOCKED_POD, containers=[module, asking])
    restricted.await_running(name, POD_S)
    for path in ("ready", "echo"):
        words = ["/tool", "get", f"http://127.0.0.1:{PORT}/{path}", "20s"]
        answer = restricted.kube.kubectl("-n", restricted.name, "exec", name, "-c", "asking", "--", *words)
        assert '"jede"' in answer


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_small_and_says_that_it_is_nobody(own: Cluster, images: Images, name: str) -> None:
    assert images[name]
    built = images.built[name]
    figures = " + ".join(f"{one / MIB:.2f}" for one in built.layers)
    print(f"{name}: {sum(built.layers) / MIB:.1f} MiB = {figures}; built in {built.seconds:.0f} s")
    own_layers = built.layers[1:] if "BASE" in bases_of(name) else built.layers
    assert sum(own_layers) < MOST_OF_ITS_OWN[name] * MIB
    if name in IDI:
        assert built.layers[-1] < MOST_OF_IDI * MIB
    config = json.loads(blob(built, json.loads(built.manifest)["config"]["digest"]).read_bytes())
    assert config["config"]["User"] == "65532:65532"
    assert loose(built, own_layers) == []


def loose(built: Built, own_layers: list[int]) -> list[str]:
    """Files of the image's own that another than root owns or may write, or that lend their owner's rights."""
    found = []
    for layer in json.loads(built.manifest)["layers"][-len(own_layers) :]:
        with tarfile.open(blob(built, layer["digest"]), "r|gz") as tar:
            found += [
                one.name for one in tar if one.uid or one.gid or (one.mode & 0o6022 and not one.issym())
            ]
    return found


def blob(built: Built, digest: str) -> Path:
    return built.blobs / digest.split(":")[1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES[: scale(0, len(NAMES))] or AGAIN)
def test_the_same_inputs_give_the_same_digest(
    own: Cluster, images: Images, name: str, tmp_path: Path
) -> None:
    context = Context(name, cache() / "images" / "wheels")
    context.write(tmp_path / "context")
    again = build(
        own,
        tmp_path / "context",
        f"{name}-again",
        bases=bases_of(name),
        arguments=arguments_of(context),
        dockerfile=context.dockerfile,
        again=True,
    )
    assert images[name].endswith(again.digest)


@pytest.mark.timeout(400)
def test_a_change_of_idi_costs_the_last_layer(own: Cluster, images: Images, tmp_path: Path) -> None:
    assert images["sidecar"]
    before = json.loads(images.built["sidecar"].manifest)["layers"]
    context = Context("sidecar", cache() / "images" / "wheels")
    context.write(tmp_path / "context")
    changed = tmp_path / "context" / "src" / "idi" / "__init__.py"
    changed.write_text(changed.read_text() + '\nCHANGED = "yes"\n')
    built = build(
        own,
        tmp_path / "context",
        "sidecar-changed",
        bases=bases_of("sidecar"),
        arguments=arguments_of(context),
        dockerfile=context.dockerfile,
    )
    after = json.loads(built.manifest)["layers"]
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


@pytest.mark.timeout(400)
def test_make_images_builds_and_pushes_the_same_and_says_its_digest(own: Cluster, images: Images) -> None:
    """With the builder inside, where the registry is; what it would fetch was fetched for the fixture.

    Not the digest of the fixture's: buildah takes the base's layer as the registry has it, and packs it anew elsewhere.
    What is in the packing is the same: the configuration has the digest of each layer's content.
    """
    names = ("relay", "standin-python")
    assert all(images[name] for name in names)
    registry = f"{API}:{REGISTRY_PORT}"
    [base] = bases_of("relay").values()
    own.registry.push(base)
    words = [sys.executable, str(ROOT / "tools" / "images.py"), *names, "--builder=buildah", "--insecure"]
    words += [f"--push={registry}/team", f"--base={registry}/{base.repository}@{digest(base.manifest)}"]
    words += [f"--wheels={cache() / 'images' / 'wheels'}"]
    settings = ["BUILDAH_ISOLATION=chroot", "STORAGE_DRIVER=overlay"]
    said = yaml.safe_load(own.control.run("env", *settings, *words, timeout_s=BUILD_S))
    version = Context("relay", Path()).version
    assert said == {
        name: {"image": f"{registry}/team/{name}@{own.registry.digest_of(f'team/{name}', version)}"}
        for name in names
    }
    for name in names:
        pushed = json.loads(own.registry.manifest_of(f"team/{name}", version))
        kept = json.loads(images.built[name].manifest)
        assert pushed["config"] == kept["config"]
        assert pushed["layers"][1:] == kept["layers"][1:]
