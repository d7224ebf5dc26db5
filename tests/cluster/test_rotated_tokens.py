"""The token of a pod is replaced while it runs: who opens a stream anew comes with what is there by then.

A projected token lives ten minutes at least, and kubelet puts another one in its place after eight. A proxy's stream
stays open for days, so when its plane is started again the token of its first minutes is worth nothing any more.
The long test waits for that. The short one does what kubelet does, with tokens of its own, and breaks the stream: a
token that is nobody's keeps the proxy out, so the file was read again; one that is good lets it in.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from idi.parts.gateway.envoy.arguments import TOKEN_FILE
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import Environment
from tests.support.cluster.faults import stopped
from tests.support.cluster.here import pids, somebody
from tests.support.history import judge
from tests.support.scale import need_part, scale

pytestmark = [pytest.mark.requirement("S4", "T4", "K1"), pytest.mark.timeout(300)]

PAST_S = 75.0
"""After a token's end the cluster takes it for a minute more, and keeps what it found for ten seconds."""
CLUSTERS = r"""
import re, socket
with socket.socket(socket.AF_UNIX) as admin:
    admin.settimeout(5)
    admin.connect("/run/idi/envoy.admin")
    admin.sendall(b"GET /clusters HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
    said = b""
    while piece := admin.recv(65536):
        said += piece
print(len(set(re.findall(rb"^cam::([0-9.:]+)::", said, re.M))))
"""
ASK = """
import urllib.request
print(urllib.request.urlopen("http://127.0.0.1:20201/", timeout=10).status)
"""
PUT = """
set -e
cd "$0"
mkdir ..test-$2
printf %s "$1" > ..test-$2/token
chmod 644 ..test-$2/token
chmod 755 ..test-$2
ln -s ..test-$2 ..data_test
mv -T ..data_test ..data
"""
"""As kubelet does it: a new folder, and the link to it renamed over."""


def known(environment: Environment, pod: str) -> int:
    """How many instances of cam the proxy of this pod knows."""
    return int(environment.python(pod, "sidecar", CLUSTERS))


def token_of(environment: Environment, pod: str) -> str:
    words = ("exec", pod, "-c", "sidecar", "--", "cat", "/var/run/idi/token/token")
    return environment.kubectl(*words).strip()


def ends(token: str) -> float:
    payload = token.split(".")[1]
    return float(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])


def replace_the_planes(environment: Environment) -> None:
    """Both replicas at once, so that every proxy has to open its stream anew."""
    environment.kubectl("delete", "pod", "-l", "idi.dev/part=xds", "--grace-period=0", "--force")
    environment.kubectl("rollout", "status", "deployment/xds", "--timeout=60s", timeout_s=90)


def put(own: Cluster, pod: dict[str, Any], token: str) -> None:
    folder = f"/var/lib/kubelet/pods/{pod['metadata']['uid']}/volumes/kubernetes.io~projected/token"
    own.groups[pod["spec"]["nodeName"]].run("sh", "-c", PUT, folder, token, str(time.time_ns()))
    handed = Path(f"/proc/{pids(pod, 'sidecar')[0]}/root/run/idi/{TOKEN_FILE}")
    Environment.until(lambda: token in handed.read_text(), 10, "the agent to hand the token on")


def break_off(pod: dict[str, Any]) -> None:
    """End the connection of its proxy to the plane, as a network does that forgets one."""
    enter = ["nsenter", "--target", str(somebody(pod["metadata"]["uid"])), "--net"]
    done = subprocess.run([*enter, "ss", "-KHtn", "dport", "=", ":8444"], capture_output=True, text=True)
    need_part("connections that can be ended for others", done.stdout, f"INET_DIAG_DESTROY: {done.stderr}")


def inside(pod: dict[str, Any], script: str) -> str:
    """What a Python script says in a pod's network, with its sidecar's sockets: without kubelet there is no exec."""
    [pid, *_] = pids(pod, "sidecar")
    script = script.replace("/run/idi/", f"/proc/{pid}/root/run/idi/")
    enter = ["nsenter", "--target", str(pid), "--net", sys.executable, "-c", script]
    done = subprocess.run(enter, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_proxy_reads_its_token_again_when_it_reconnects(environment: Environment, own: Cluster) -> None:
    """kubelets are away meanwhile, which would put their own token back: a module that dies then stays dead."""
    # kubelet tells of a container some time after we know it.
    environment.kubectl("wait", "pod", "-l", "idi.dev/module", "--for=condition=Ready", "--timeout=30s")
    [jede] = environment.pods("idi.dev/module=jede")
    cam = environment.pods("idi.dev/module=cam")[0]
    name = jede["metadata"]["name"]
    environment.until(lambda: known(environment, name) == 2, 20, "jede to know both")
    good = environment.kubectl(
        *("create", "token", "idi-jede", "--audience=idi", "--duration=600s"),
        *("--bound-object-kind=Pod", f"--bound-object-name={name}"),
        f"--bound-object-uid={jede['metadata']['uid']}",
    )
    [process] = pids(cam, "module")
    with ExitStack() as away:
        for node in {jede["spec"]["nodeName"], cam["spec"]["nodeName"]}:
            away.enter_context(stopped(own, node, "kubelet"))
        put(own, jede, "nonsense")
        break_off(jede)
        os.kill(process, signal.SIGKILL)
        time.sleep(5)
        assert inside(jede, CLUSTERS) == "2", "it was let in with a token that is nobody's"
        assert inside(jede, ASK) == "200", "it does not serve by what it has"
        put(own, jede, good.strip())
        environment.until(lambda: inside(jede, CLUSTERS) == "1", 20, "the proxy to be back")
    environment.until(lambda: environment.ready()["cam"] == 2, 60, "cam to be started again")
    environment.until(lambda: known(environment, name) == 2, 20, "the proxy to hear of it")


@pytest.mark.skipif(not scale(0, 1), reason="waits for a token to expire: twelve minutes (make test-long)")
@pytest.mark.timeout(1500)
def test_planes_and_control_come_back_after_every_first_token_has_expired(environment: Environment) -> None:
    pods = [pod["metadata"]["name"] for pod in environment.pods("idi.dev/module")]
    first = {pod: token_of(environment, pod) for pod in pods}
    wait_s = max(map(ends, first.values())) + PAST_S - time.time()
    print(f"tokens expire, and are not taken any more, in {wait_s:.0f} s")
    time.sleep(max(0.0, wait_s))
    for pod, token in first.items():
        now = token_of(environment, pod)
        assert now != token, "kubelet has not replaced it"
        assert ends(now) > time.time()
    review = {"spec": {"token": first[pods[0]], "audiences": ["idi"]}}
    said = environment.kube.api.create("/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert not said["status"].get("authenticated"), "the first one would still do"
    load = environment.load("load-tokens", "/open/jede/call/cam/echo", 300)
    began = time.monotonic()
    # Control first: its replicas come back to it with tokens of their own, older than their life too.
    environment.kubectl("delete", "pod", "control-0", "--grace-period=0", "--force")
    environment.until(lambda: environment.idi("status").code == 0, 90, "control to be back")
    environment.done("scale", "cam=3")
    [jede] = [pod for pod in pods if pod.startswith("jede-")]
    environment.until(lambda: known(environment, jede) == 3, 20, "the replicas to pass on what control says")
    print(f"control killed: a change came through {time.monotonic() - began:.1f} s later")
    began = time.monotonic()
    replace_the_planes(environment)
    environment.done("scale", "cam=2")
    environment.until(lambda: known(environment, jede) == 2, 20, "the proxy to be back with its new token")
    print(f"replicas replaced: a change came through {time.monotonic() - began:.1f} s later")
    assert environment.ready() == {"jede": 1, "cam": 2, "dere": 1}
    verdict = judge(environment.history(load, stop=True))
    print(verdict)
    assert not verdict.faults, verdict.faults
