"""Environments of one file side by side on one cluster: each has what is its own, and nobody else's.

Two by default: the session's, and another section of the same file. Under `make test-long` it is three of all nine
modules, on a cluster of the test's own with room for that. What must not get through is tried by pods of one at those
of another: by the network, and, with the way there opened as only the cluster's administrator can, by a certificate of
the identity that the other side lets in, from the authority of its own environment.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster.conftest import OUTSIDE
from tests.cluster.test_environment import REACH, pod_of
from tests.cluster.test_environment_nine import POOL
from tests.support.cluster.builds import Images
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster, lacking
from tests.support.cluster.environment import FILE, NINE, Environment
from tests.support.cluster.layout import API
from tests.support.scale import scale

pytestmark = [pytest.mark.requirement("K1", "K3"), pytest.mark.timeout(1800)]

THREE = ("dev", "staging", "production")
QUOTA = {"dev": 40, "staging": 41, "production": 42}
ROOM = ("general", "ml", "storage", "general", "general")
"""Nodes for three times nine: what all of them ask for is more than one machine of two processors has."""
UP_S = 900.0


@dataclass(frozen=True)
class Side:
    """One of them, with the ready instances that it is declared to have."""

    environment: Environment
    ready: Mapping[str, int]


AS_JEDE = """
import asyncio, socket, ssl, sys, tempfile
from pathlib import Path
from idi.parts.certificates.openbao import OpenBaoAuthority
from idi.parts.clients.openbao import OpenBao, Session
from idi.parts.clients.openbao_layout import Scope
from idi.parts.secrets.openbao.keys import KeyFolder

domain, environment, namespace, host = sys.argv[1:]

async def made():
    credential = KeyFolder(Path("/var/lib/idi/control/keys") / namespace).control()
    async with OpenBao("unix:/run/idi/control/bao.sock") as client:
        authority = OpenBaoAuthority(Session(client, credential), Scope(domain, environment, 86400.0))
        return await authority.issue(f"spiffe://{domain}/{environment}/jede", 600)

shown = asyncio.run(made())
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with tempfile.NamedTemporaryFile() as file:
    file.write(shown.chain + shown.key)
    file.flush()
    context.load_cert_chain(file.name)
try:
    with socket.create_connection((host, 20101), 5) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(b"GET /ready HTTP/1.1\\r\\nhost: cam\\r\\nconnection: close\\r\\n\\r\\n")
        print((tls.recv(100).decode().split() + ["", "nothing"])[1])
except OSError as error:
    print("refused:", type(error).__name__, error)
"""
"""A certificate of jede's identity from the authority of control's own environment, shown at a mesh port."""


@pytest.fixture(scope="module")
def sides(request: pytest.FixtureRequest) -> Iterator[dict[str, Side]]:
    if scale(2, 3) == 2:
        yield from two(request.getfixturevalue("environment"))
        return
    folder = request.getfixturevalue("tmp_path_factory").mktemp("three")
    if OUTSIDE:
        yield from three(folder, *map(request.getfixturevalue, ("kube", "images", "helm")))
        return
    if lacks := lacking():
        pytest.skip(f"this machine lacks {', '.join(lacks)} (make test-parts)")
    with Cluster(f"three-{os.getpid()}", ROOM) as larger:
        helm = larger.programs["helm"]
        yield from three(folder, larger.client, Images(larger, helm), helm)


def two(staging: Environment) -> Iterator[dict[str, Side]]:
    """The session's environment is one already; its file gets a second section."""
    text = (staging.folder / "platform.yaml").read_text()
    section = text[text.index(f"  {staging.env}:") :].replace(f"  {staging.env}:", "  dev:", 1)
    quota = f"        quota: {{cpu: 2, memory: 6GiB, pods: {QUOTA['dev']}}}\n"
    modules = "    modules: {cam: {instances: 1}}\n"
    (staging.folder / "platform.yaml").write_text(text + section + quota + modules)
    dev = replace(staging, env="dev")
    began = time.monotonic()
    dev.done("up")
    print(f"a second environment of three modules: {time.monotonic() - began:.1f} s")
    yield {
        "staging": Side(staging, {"jede": 1, "cam": 2, "dere": 1}),
        "dev": Side(dev, {"jede": 1, "cam": 1, "dere": 1}),
    }
    dev.idi("down")
    staging.kube.kubectl("delete", "namespace", dev.namespace, "--wait=false")
    (staging.folder / "platform.yaml").write_text(text)


def three(folder: Path, kube: Client, images: Mapping[str, str], helm: Path) -> Iterator[dict[str, Side]]:
    first = Environment(folder, kube, images, helm, f"three-{uuid4().hex[:4]}", THREE[0])
    (folder / "platform.yaml").write_text(all_nine(first))
    made = {name: replace(first, env=name) for name in THREE}
    for one in made.values():
        began = time.monotonic()
        one.done("up", timeout_s=UP_S)
        print(f"nine modules in {one.env}: {time.monotonic() - began:.1f} s", flush=True)
    yield {name: Side(one, dict.fromkeys(NINE, 1)) for name, one in made.items()}
    for one in made.values():
        one.idi("down")
        kube.kubectl("delete", "namespace", one.namespace, "--wait=false")


def all_nine(environment: Environment) -> str:
    """platform.yaml of the repository, with three environments on this cluster and one instance of each module."""
    text = FILE.read_text().partition("\nenvironments:")[0]
    text = text.replace("image: standins/python", f"image: {environment.images['standin-python']}")
    text = re.sub(r"^platform: junzi$", f"platform: {environment.platform}", text, flags=re.M)
    text = text.replace("storage: {size: 10GiB}", "storage: {size: 64MiB}").replace(
        "instances: 2", "instances: 1"
    )
    text = text.replace("{cpu: 100m, memory: 128MiB}", "{cpu: 20m, memory: 64MiB}")
    ours = ", ".join(f'{name}: "{environment.images[name]}"' for name in ("control", "sidecar", "relay"))
    text += "\nenvironments:\n"
    for name in THREE:
        quota = f"{{cpu: 3, memory: 8GiB, pods: {QUOTA[name]}}}"
        at = f"context: {environment.context}, dns: [{API}/32], images: {{{ours}}}"
        text += f"  {name}: {{target: {{kubernetes: {{{at}, quota: {quota}}}}}}}\n"
    return text


def objects(environment: Environment, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(environment.kubectl("get", kind, "-o", "json"))["items"]
    return found


def test_each_has_its_namespace_quota_and_pods_on_their_pools(sides: dict[str, Side]) -> None:
    whole = next(iter(sides.values())).environment
    pool = {
        node["metadata"]["name"]: node["metadata"]["labels"]["idi.dev/pool"]
        for node in objects(whole, "nodes")
    }
    for name, side in sides.items():
        one = side.environment
        print(one.kubectl("get", "pods,hpa,resourcequota,pdb", "-o", "wide"))
        status = one.done("status", "--json").document
        assert (status["env"], status["platform"]) == (name, one.platform)
        assert {each["name"]: each["ready"] for each in status["modules"]} == side.ready
        for pod in one.pods("idi.dev/module"):
            module = pod["metadata"]["labels"]["idi.dev/module"]
            assert pod["metadata"]["labels"]["idi.dev/environment"] == name
            assert pool[pod["spec"]["nodeName"]] == POOL.get(module, "general"), module
        [quota] = objects(one, "resourcequota")
        declared = QUOTA[name] if len(sides) == len(THREE) or name == "dev" else 150
        assert quota["status"]["hard"]["pods"] == str(declared)
        assert int(quota["status"]["used"]["pods"]) == len(objects(one, "pods"))


def test_a_change_in_one_is_none_in_another(sides: dict[str, Side]) -> None:
    dev = sides["dev"].environment
    others = [side.environment for name, side in sides.items() if name != "dev"]
    before = [{pod["metadata"]["uid"] for pod in one.pods("idi.dev/module")} for one in others]
    dev.done("scale", "dere=2")
    assert dev.ready()["dere"] == 2
    assert [one.ready()["dere"] for one in others] == [1] * len(others)
    dev.done("scale", "dere=1")
    assert [{pod["metadata"]["uid"] for pod in one.pods("idi.dev/module")} for one in others] == before


@pytest.mark.requirement("S3", "G1")
def test_a_token_of_one_opens_no_other_gateway(sides: dict[str, Side]) -> None:
    script = (
        "import sys, urllib.request, urllib.error\n"
        "for where in sys.argv[2:]:\n"
        "    asked = urllib.request.Request(where, headers={'authorization': 'Bearer ' + sys.argv[1]})\n"
        "    try: print(urllib.request.urlopen(asked, timeout=10).status)\n"
        "    except urllib.error.HTTPError as error: print(error.code)\n"
    )
    staging = sides["staging"].environment
    token = staging.done("token", "--json").document["token"]
    urls = [f"http://gateway.{side.environment.namespace}.svc:8080/v1/cam/" for side in sides.values()]
    said = staging.ended(staging.runner("visitor", script, token, *urls)).split()
    assert said == ["200" if name == "staging" else "401" for name in sides]


def as_jede(one: Environment, address: str) -> str:
    words = (f"{one.platform}.idi", one.env, one.namespace, address)
    return one.python("control-0", "control", AS_JEDE, *words, timeout_s=150).strip()


@pytest.mark.requirement("S4", "T4")
def test_no_module_reaches_one_of_another_environment(sides: dict[str, Side]) -> None:
    """First by NetworkPolicy; then, with every policy against it opened, by whose the certificate is."""
    staging, dev = sides["staging"].environment, sides["dev"].environment
    jede = pod_of(staging, "jede")
    address = dev.pods("idi.dev/module=cam")[0]["status"]["podIP"]
    own = staging.pods("idi.dev/module=cam")[0]["status"]["podIP"]
    assert staging.python(jede, "module", REACH, own, "20101", "tcp").strip() == "connected"
    for port in ("20101", "20000", "20001"):
        assert staging.python(jede, "module", REACH, address, port, "tcp").strip() != "connected", port
    for one, rule in ((staging, "egress"), (dev, "ingress")):
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "opened"},
            "spec": {"podSelector": {}, "policyTypes": [rule.capitalize()], rule: [{}]},
        }
        one.kubectl("apply", "-f", "-", stdin=json.dumps(policy))
    try:
        staging.until(
            lambda: staging.python(jede, "module", REACH, address, "20101", "tcp").strip() == "connected",
            60,
            "the policies to be opened",
        )
        assert staging.python(jede, "module", REACH, address, "20101", "tls").strip() != "answered"
        said = as_jede(staging, address)
        print(f"with jede's certificate of staging at cam of dev: {said}")
        assert said.startswith("refused:"), said
        assert as_jede(dev, address) == "200", "with dev's own it is let in"
    finally:
        for one in (staging, dev):
            one.kubectl("delete", "networkpolicy", "opened")
