"""What a person sees of an environment on a cluster: status, figures, logs, variables, refusals, and a way there that
mends itself."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.cluster.environment import Environment

pytestmark = [pytest.mark.requirement("K1"), pytest.mark.timeout(600)]


def status(environment: Environment) -> dict[str, Any]:
    found: dict[str, Any] = environment.done("status", "--json").document
    return found


def module(environment: Environment, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in status(environment)["modules"] if m["name"] == name)
    return found


def names(environment: Environment, selector: str) -> list[str]:
    return sorted(pod["metadata"]["name"] for pod in environment.pods(selector))


def sources(out: str) -> set[str]:
    return {line.partition("|")[0].strip() for line in out.splitlines()}


@pytest.fixture
def apart(environment: Environment) -> Iterator[Environment]:
    """As another person on another machine: the same declaration, and nothing that a command has left."""
    folder = Path(tempfile.mkdtemp(prefix="idi-apart-"))
    shutil.copy(environment.folder / "platform.yaml", folder / "platform.yaml")
    (folder / "run").mkdir(mode=0o700)
    yield replace(environment, folder=folder, variables={"XDG_RUNTIME_DIR": str(folder / "run")})
    shutil.rmtree(folder)  # the way there ends with it


@pytest.mark.requirement("K1", "O1")
def test_a_status_names_pods_where_they_are_and_what_they_do(environment: Environment) -> None:
    pods = {pod["metadata"]["name"]: pod for pod in environment.pods("idi.dev/module=cam")}
    for one in module(environment, "cam")["instances"]:
        pod = pods.pop(one["id"])
        assert one["address"] == f"{pod['status']['podIP']}:20101"
        assert one["node"] == pod["spec"]["nodeName"]
    assert not pods

    def figures() -> dict[str, Any]:
        for _ in range(3):
            environment.done("call", "cam", "/")
        found: dict[str, Any] = module(environment, "cam")["figures"]
        return found

    # Envoy puts its times together every 5 s.
    environment.until(lambda: (now := figures())["requests_per_s"] and now["p95_ms"], 30, "figures")
    assert figures()["p95_ms"] < 1000
    assert figures()["errors_ratio"] == 0
    first, *others = sorted(one["id"] for one in module(environment, "cam")["instances"])
    shown = environment.done("status").out
    assert f"{first}, -{others[0].rpartition('-')[2]}" in shown
    assert "127.0.0.1:2" not in shown


@pytest.mark.requirement("O1")
def test_a_status_costs_little_and_waits_for_nobody(environment: Environment) -> None:
    status(environment)
    took = []
    for _ in range(5):
        time.sleep(1.0)
        began = time.monotonic()
        status(environment)
        took.append(time.monotonic() - began)
    print(
        f"idi status with figures of 4 pods: {sorted(took)[2] * 1000:.0f} ms, at most {max(took) * 1000:.0f} ms"
    )
    assert sorted(took)[2] < 3


@pytest.mark.requirement("O2", "K1")
def test_logs_of_modules_pods_sidecars_and_parts(environment: Environment) -> None:
    cams, every = names(environment, "idi.dev/module=cam"), names(environment, "idi.dev/module")
    assert set(every) <= sources(environment.done("logs").out)
    assert sources(environment.done("logs", "cam").out) == set(cams)
    assert sources(environment.done("logs", cams[0]).out) == {cams[0]}
    # A sidecar that is well may have nothing to say.
    assert sources(environment.done("logs", "cam.sidecar").out) <= {f"{cam}.sidecar" for cam in cams}
    assert sources(environment.done("logs", "gateway").out) <= set(names(environment, "idi.dev/part=gateway"))
    assert "OpenBao" in environment.done("logs", "openbao").out
    environment.done("logs", "control")
    documents = [json.loads(line) for line in environment.done("logs", "cam", "--json").out.splitlines()]
    assert {one["source"] for one in documents} == set(cams)
    assert {one["module"] for one in documents} == {"cam"}
    assert [one["time"] for one in documents] == sorted(one["time"] for one in documents)
    assert len(environment.done("logs", "--lines", "2").out.splitlines()) == 2
    started = environment.done("logs", "cam", "--grep", '"msg":"started"').out.splitlines()
    assert started
    assert all('"msg":"started"' in line for line in started)
    assert environment.done("logs", "cam", "--since", "1s").out == ""
    nobody = environment.idi("logs", "nobody")
    assert nobody.code == 2
    assert "No module is called 'nobody'." in nobody.err


@pytest.mark.requirement("O2", "K1")
def test_following_picks_up_new_pods_and_ends_by_ctrl_c(environment: Environment) -> None:
    out = environment.folder / "followed"
    command = environment.command("logs", "dere", "--follow")
    with (
        out.open("wb") as file,
        subprocess.Popen(**command, stdout=file, stderr=subprocess.STDOUT) as following,
    ):
        try:
            before = set(names(environment, "idi.dev/module=dere"))
            environment.until(lambda: sources(out.read_text()) == before, 20, "the first lines")
            environment.done("scale", "dere=2")
            [new] = set(names(environment, "idi.dev/module=dere")) - before
            environment.until(lambda: new in sources(out.read_text()), 20, "the new pod's")
        finally:
            environment.done("scale", "dere=1")
            following.send_signal(signal.SIGINT)
            try:
                assert following.wait(20) == 130
            finally:
                following.kill()


@pytest.mark.requirement("O2", "K1")
def test_what_was_printed_before_a_crash_is_there_after_it(environment: Environment) -> None:
    environment.until(lambda: len(names(environment, "idi.dev/module=dere")) == 1, 60, "one pod of dere")
    [dere] = names(environment, "idi.dev/module=dere")
    environment.kubectl("exec", dere, "-c", "module", "--", "python", "-c", "import os; os.kill(1, 15)")
    environment.until(lambda: module(environment, "dere")["instances"][0]["restarts"] > 0, 60, "a restart")
    environment.until(lambda: environment.ready()["dere"] == 1, 60, "dere")
    lines = environment.done("logs", "dere", "--grep", '"msg":"started"').out.splitlines()
    assert len([line for line in lines if dere in line]) == 2


@pytest.mark.requirement("T4", "K1")
def test_variables_are_shown_without_what_is_secret_or_a_pods_own(environment: Environment) -> None:
    shown = environment.done("env", "jede")
    assert "export CAM_URL=http://127.0.0.1:20201\n" in shown.out
    assert "export PORT=20001\n" in shown.out
    assert "IDI_INSTANCE=" not in shown.out
    assert "Each pod has its own IDI_INSTANCE" in shown.err
    revealed = environment.idi("env", "jede", "--reveal")
    assert revealed.code == 1
    assert "No secret leaves the cluster" in revealed.err


def test_what_a_cluster_cannot_do_is_refused_in_words(environment: Environment) -> None:
    said = environment.exactly("run", "jede", "--env", environment.env, "--", "true")
    assert said.code == 1, said
    assert "is on a cluster" in said.err
    for word in ("--watch", "--gateway-port=9000"):
        said = environment.idi("up", word)
        assert said.code == 2
        assert "for a platform on this machine" in said.err


def test_the_way_there_mends_itself_when_the_gateways_pod_goes(environment: Environment) -> None:
    assert environment.done("call", "cam", "/").out
    for gateway in names(environment, "idi.dev/part=gateway"):
        environment.kubectl("delete", "pod", gateway, "--wait=true", timeout_s=120)
    environment.until(lambda: bool(names(environment, "idi.dev/part=gateway")), 30, "another gateway")
    environment.kubectl("rollout", "status", "deployment/gateway", "--timeout=60s", timeout_s=90)
    for _ in range(3):
        assert environment.done("call", "cam", "/").out


def test_who_did_not_bring_it_up_finds_it_and_an_unreachable_cluster_is_said(apart: Environment) -> None:
    assert {m["name"] for m in status(apart)["modules"]} == {"jede", "cam", "dere"}
    assert apart.done("logs", "cam", "--lines", "1").out
    broken = apart.folder / "kubeconfig"
    broken.touch(mode=0o600)
    text = apart.kube.kubeconfig.read_text()
    broken.write_text(re.sub(r"https://127\.0\.0\.1:\d+", "https://127.0.0.1:1", text))
    (apart.folder / "other").mkdir(mode=0o700)
    away = {"KUBECONFIG": str(broken), "XDG_RUNTIME_DIR": str(apart.folder / "other")}
    unreached = replace(apart, variables=away)
    for words in (("status",), ("logs",), ("call", "cam", "/"), ("down",)):
        said = unreached.idi(*words)
        assert said.code == 3, (words, said)
        assert "Nobody answers at the cluster" in said.err
    assert json.loads(unreached.idi("status", "--json").err)["exit"] == 3
