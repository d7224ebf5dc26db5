"""People in their roles: each bound to one of them alone, by a kubeconfig of their own, on another machine.

A person is a service account of another namespace, since any cluster gives those a token; Kubernetes' rules take them
for users like any other.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster.client import Client
from tests.support.cluster.environment import Environment
from tests.support.cluster.group import ClusterError

pytestmark = [pytest.mark.requirement("S6", "K1"), pytest.mark.timeout(600)]

ROLES = ("viewer", "developer", "deployer", "operator", "auditor")
Person = Callable[..., Environment]


@pytest.fixture(scope="module")
def person(environment: Environment) -> Iterator[Person]:
    """Somebody who is bound to these roles and to nothing else, with the same declaration."""
    made: list[Path] = []
    crowd = f"{environment.namespace}-people"
    environment.kube.kubectl("create", "namespace", crowd)

    def one(name: str, *roles: str) -> Environment:
        environment.kube.kubectl("-n", crowd, "create", "serviceaccount", name)
        for role in roles:
            account = f"--serviceaccount={crowd}:{name}"
            environment.kubectl("create", "rolebinding", f"{name}-{role}", f"--role=role.{role}", account)
        token = environment.kube.kubectl("-n", crowd, "create", "token", name, "--duration=1h").strip()
        folder = Path(tempfile.mkdtemp(prefix="idi-person-"))
        made.append(folder)
        (folder / "run").mkdir(mode=0o700)
        (folder / "platform.yaml").write_text((environment.folder / "platform.yaml").read_text())
        document = yaml.safe_load(environment.kube.kubeconfig.read_text())
        for user in document["users"]:
            user["user"] = {"token": token}
        kubeconfig = folder / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(yaml.safe_dump(document))
        variables = {"XDG_RUNTIME_DIR": str(folder / "run"), "KUBECONFIG": str(kubeconfig)}
        return replace(environment, folder=folder, variables=variables)

    yield one
    environment.kube.kubectl("delete", "namespace", crowd, "--wait=false")
    for folder in made:
        subprocess.run(["rm", "-r", str(folder)], check=True)  # the ways there end with it


def can(who: Environment, verb: str, what: str) -> bool:
    theirs = Client(Path(who.variables["KUBECONFIG"]))
    try:
        return theirs.kubectl("-n", who.namespace, "auth", "can-i", verb, what).strip() == "yes"
    except ClusterError as error:
        if str(error).splitlines()[-1].endswith("no"):
            return False
        raise


def test_a_viewer_sees_and_does_nothing(person: Person) -> None:
    viewer = person("vera", "viewer")
    assert viewer.ready() == {"jede": 1, "cam": 2, "dere": 1}
    viewer.done("plan")
    assert viewer.done("logs", "cam", "--lines", "1").out
    for words in (("scale", "cam=3"), ("restart", "cam"), ("deploy", "cam"), ("token",), ("down",)):
        said = viewer.idi(*words)
        assert said.code == 1, (words, said)
        assert "The role viewer may not do this" in said.err
    said = viewer.idi("audit", "list")
    assert said.code == 1, said
    assert "Who has the role auditor or operator may" in said.err
    # Nothing in the cluster but the way to control: into no module's pod, to no secret.
    for verb, what in (
        ("get", "secrets"),
        ("create", "pods/exec"),
        ("delete", "pods"),
        ("create", "pods/portforward"),
    ):
        assert not can(viewer, verb, what), (verb, what)


def test_a_developer_calls_and_changes_nothing(person: Person) -> None:
    developer = person("dora", "developer")
    assert json.loads(developer.done("call", "jede", "/call/cam").out)
    assert developer.done("token").out
    said = developer.idi("restart", "cam")
    assert said.code == 1
    assert "The role developer may not do this" in said.err
    assert "deployer or operator" in said.err


@pytest.mark.requirement("S6", "C1")
def test_a_deployer_brings_up_what_is_installed_and_installs_nothing(
    environment: Environment, person: Person
) -> None:
    environment.done("up")
    deployer = person("dan", "deployer")
    said = deployer.done("up")
    assert "No instance had to change" in said.out or "Nothing to change" in said.out, said
    deployer.done("deploy", "dere")
    deployer.done("restart", "dere")
    entries = [json.loads(line) for line in environment.done("audit", "list", "--json").out.splitlines()]
    begun = [one for one in entries if one.get("action") == "restart" and one["phase"] == "begin"]
    assert begun[-1]["actor"]["name"] == "deployer"
    said = deployer.idi("down")
    assert said.code == 1
    assert "The role deployer may not do this" in said.err
    file = deployer.folder / "platform.yaml"
    text = file.read_text()
    file.write_text(text.replace("        context:", "        quota: {pods: 99}\n        context:", 1))
    said = deployer.idi("up")
    assert said.code == 1, said
    assert "is not what this declaration and this idi would install" in said.err
    assert "Have somebody run idi up --env staging once who may" in said.err
    file.write_text(text)
    deployer.done("up")


def test_an_operator_may_act_in_a_lesser_role_and_one_of_none_is_told(person: Person) -> None:
    operator = person("olga", "operator", "viewer")
    operator.done("restart", "dere")
    said = operator.idi("restart", "dere", "--role", "viewer")
    assert said.code == 1
    assert "The role viewer may not do this" in said.err
    operator.done("status", "--role", "viewer")
    operator.done("restart", "dere")  # and the other way is as it was
    said = operator.idi("status", "--role", "deployer")
    assert said.code == 3, said
    assert "becoming deployer" in said.err
    wrong = operator.idi("status", "--role", "king")
    assert wrong.code == 2
    nobody = person("nemo")
    said = nobody.idi("status")
    assert said.code == 3, said
    assert f"You have no role in namespace {operator.namespace}" in said.err
    assert "--role=role.viewer" in said.err


@pytest.mark.requirement("S5", "S6")
def test_an_auditor_verifies_the_log_of_a_cluster_on_their_own_machine(
    environment: Environment, person: Person, tmp_path: Path
) -> None:
    auditor = person("ada", "auditor")
    listed = auditor.done("audit", "list", "--limit", "5")
    assert "signed" in listed.out
    entries = [
        json.loads(line)
        for line in auditor.done("audit", "list", "--json", "--limit", "900").out.splitlines()
    ]
    assert [one["index"] for one in entries] == list(range(len(entries)))
    report = auditor.done("audit", "verify", "--json").document
    assert report["holds"], report
    assert report["size"] >= len(entries)
    assert any("taken from the log itself" in one for one in report["remarks"])
    again = auditor.done("audit", "verify", "--json").document
    assert again["holds"]
    assert again["remarks"] == []
    proof = auditor.done("audit", "prove", "3").out
    assert proof.startswith("c2sp.org/tlog-proof@v1\nindex 3\n")
    raw = auditor.done("audit", "prove", "3", "--entry").out
    assert json.loads(raw)["index"] == 3
    said = auditor.idi("restart", "cam")
    assert said.code == 1
    assert "The role auditor may not do this" in said.err
    # Another log is told from the one that was verified.
    remembered = auditor.folder / ".idi" / auditor.env / "audit.json"
    document: dict[str, Any] = json.loads(remembered.read_text())
    head, _, rest = document["head"].partition("\n\n")
    origin, size, root = head.split("\n")
    other = base64.b64encode(b"\1" * 32).decode()
    remembered.write_text(json.dumps({**document, "head": "\n".join([origin, size, other]) + "\n\n" + rest}))
    said = auditor.idi("audit", "verify")
    assert said.code == 1, said
    assert root
