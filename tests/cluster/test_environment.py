"""One environment, from the command to a call through mutual TLS, and everything that must not get through."""

from __future__ import annotations

import json

import pytest

from tests.support.cluster.environment import Environment
from tests.support.history import judge

pytestmark = [pytest.mark.requirement("K1")]

CALL = """
import json, sys, urllib.request, urllib.error
request = urllib.request.Request(sys.argv[1], headers={"authorization": sys.argv[2]} if len(sys.argv) > 2 else {})
try:
    answer = urllib.request.urlopen(request, timeout=5)
    print(json.dumps([answer.status, answer.read().decode()]))
except urllib.error.HTTPError as error:
    print(json.dumps([error.code, error.read().decode()]))
except Exception as error:
    print(json.dumps([0, repr(error)]))
"""

REACH = """
import socket, ssl, sys
host, port, how = sys.argv[1], int(sys.argv[2]), sys.argv[3]
try:
    with socket.create_connection((host, port), 3) as plain:
        if how == "tcp":
            print("connected")
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with context.wrap_socket(plain) as tls:
                tls.sendall(b"GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n")
                print("answered" if tls.recv(100) else "closed")
except Exception as error:
    print(type(error).__name__)
"""

REPORT = """
import http.client, json, ssl, sys
context = ssl.create_default_context(cafile="/etc/idi/proxy/ca.crt")
connection = http.client.HTTPSConnection(sys.argv[1], 8443, context=context, timeout=5)
connection.request("POST", "/v1/pods/self/report", json.dumps({"ready": True, "reason": ""}),
                   {"authorization": "Bearer " + sys.argv[2]})
answer = connection.getresponse()
print(answer.status, answer.read().decode())
"""


def pod_of(environment: Environment, module: str) -> str:
    return str(environment.pods(f"idi.dev/module={module}")[0]["metadata"]["name"])


def called(environment: Environment, pod: str, url: str, *token: str) -> tuple[int, str]:
    status, body = json.loads(environment.python(pod, "module", CALL, url, *token))
    return status, body


@pytest.mark.requirement("K1", "G1", "D1")
def test_up_brings_everything_up_and_a_second_one_changes_nothing(environment: Environment) -> None:
    assert environment.ready() == {"jede": 1, "cam": 2, "dere": 1}
    assert "No changes" in environment.done("plan").out
    before = [pod["metadata"]["uid"] for pod in environment.pods("idi.dev/module")]
    releases = environment.kubectl("get", "secrets", "-l", "owner=helm", "-o", "name")
    again = environment.done("up")
    assert "Nothing to change." in again.out
    assert [pod["metadata"]["uid"] for pod in environment.pods("idi.dev/module")] == before
    assert environment.kubectl("get", "secrets", "-l", "owner=helm", "-o", "name") == releases


@pytest.mark.requirement("G1", "S3", "S4")
def test_the_gateway_takes_tokens_and_calls_through_mutual_tls(environment: Environment) -> None:
    assert '"module":"cam"' in environment.done("call", "cam", "/").out
    url = f"http://gateway.{environment.namespace}.svc:8080"
    jede = pod_of(environment, "jede")
    # As any client inside the cluster would; jede itself may not reach the gateway by its network policy.
    client = environment.runner("client", "import time; time.sleep(600)")
    environment.until(
        lambda: environment.kubectl("get", "pod", client, "-o", "jsonpath={.status.phase}") == "Running",
        60,
        "client",
    )
    try:

        def at(path: str, *token: str) -> tuple[int, str]:
            status, body = json.loads(environment.python(client, "main", CALL, url + path, *token))
            return status, body

        token = environment.done("token", "--json").document["token"]
        assert at("/healthz")[0] == 200
        assert at("/open/jede/")[0] == 200
        assert at("/v1/cam/")[0] == 401
        assert at("/v1/cam/", f"Bearer {token}")[0] == 200
        assert at("/v1/cam/", f"Bearer {token[:-8]}AAAAAAAA")[0] == 401
        assert at("/nothing/")[0] == 404
        status, body = at("/open/jede/call/cam")
        assert (status, '"module":"cam"' in body) == (200, True), body
    finally:
        environment.kubectl("delete", "pod", client, "--wait=false")
    assert called(environment, jede, "http://127.0.0.1:20201/")[0] == 200


@pytest.mark.requirement("S4", "T4")
def test_nobody_gets_round_the_sidecar(environment: Environment) -> None:
    """By the module's own port at its pod's address, from inside of the namespace and from a declared caller."""
    cam = environment.pods("idi.dev/module=cam")[0]
    address = cam["status"]["podIP"]
    jede = pod_of(environment, "jede")
    assert environment.python(jede, "module", REACH, address, "20001", "tcp").strip() != "connected"
    # The mesh port is there for jede, by its network policy, and wants a certificate.
    assert environment.python(jede, "module", REACH, address, "20101", "tcp").strip() == "connected"
    assert environment.python(jede, "module", REACH, address, "20101", "tls").strip() != "answered"
    # Who is not declared does not even get there, and neither does a pod that is nobody's.
    dere = pod_of(environment, "dere")
    assert environment.python(dere, "module", REACH, address, "20101", "tcp").strip() != "connected"
    stranger = environment.runner("stranger", REACH, address, "20101", "tcp")
    assert environment.ended(stranger).strip() != "connected"
    # One that only says that it is jede gets to the port, and not in: a label proves nothing.
    liar = environment.runner("liar", REACH, address, "20101", "tls", labels={"idi.dev/module": "jede"})
    assert environment.ended(liar).strip() != "answered"


@pytest.mark.requirement("S4", "S6", "T4")
def test_a_token_is_good_for_its_own_pod_and_nothing_else(environment: Environment) -> None:
    door = f"control.{environment.namespace}.svc"
    jede = pod_of(environment, "jede")

    def reported(token: str) -> str:
        return environment.python(jede, "sidecar", REPORT, door, token)

    mine = environment.kubectl("exec", jede, "-c", "sidecar", "--", "cat", "/var/run/idi/token/token")
    assert reported(mine).startswith("200")
    made = environment.kubectl("create", "token", "idi-cam", "--audience=idi")
    assert reported(made).startswith("401"), "it is bound to no pod"
    assert reported(environment.kubectl("create", "token", "default", "--audience=idi")).startswith("401")
    assert reported(environment.kubectl("create", "token", "idi-jede")).startswith("401"), "another audience"
    assert reported(environment.kubectl("create", "token", "role.operator", "--audience=idi")).startswith(
        "401"
    )
    assert reported("nonsense").startswith("401")


@pytest.mark.requirement("S6", "T4")
def test_a_token_ends_with_its_pod(environment: Environment) -> None:
    """It was asked about before, and what was answered is remembered here and in the API server."""
    door, jede, dere = (
        f"control.{environment.namespace}.svc",
        pod_of(environment, "jede"),
        pod_of(environment, "dere"),
    )
    token = environment.kubectl("exec", dere, "-c", "sidecar", "--", "cat", "/var/run/idi/token/token")

    def reported() -> str:
        return environment.python(jede, "sidecar", REPORT, door, token)[:3]

    assert reported() == "200"
    environment.kubectl("delete", "pod", dere, timeout_s=90)
    environment.until(lambda: reported() == "401", 5, "the token to be nobody's")
    environment.until(lambda: environment.ready()["dere"] == 1, 60, "dere")


@pytest.mark.requirement("S6")
def test_a_role_may_do_what_its_line_says(environment: Environment) -> None:
    control = "control-0"

    def asked(role: str, method: str, path: str, body: object = None) -> tuple[int, str]:
        token = environment.kubectl("create", "token", f"role.{role}", "--audience=idi")
        script = (
            "import http.client, sys\n"
            "c = http.client.HTTPConnection('127.0.0.1', 8446, timeout=20)\n"
            "c.request(sys.argv[1], sys.argv[2], sys.argv[4] or None, {'authorization': 'Bearer ' + sys.argv[3]})\n"
            "a = c.getresponse(); print(a.status, a.read(2000).decode())"
        )
        text = json.dumps(body) if body else ""
        said = environment.python(control, "control", script, method, path, token, text)
        status, _, rest = said.partition(" ")
        return int(status), rest

    assert asked("viewer", "GET", "/v1/status")[0] == 200
    status, said = asked("viewer", "POST", "/v1/changes", {"action": "restart", "modules": ["dere"]})
    assert (status, "viewer may not" in said) == (409, True), said
    assert asked("developer", "GET", "/v1/secrets")[0] == 200
    assert asked("deployer", "POST", "/v1/changes", {"action": "down"})[0] == 409
    assert asked("deployer", "POST", "/v1/changes", {"action": "scale", "modules": {"dere": 1}})[0] == 200
    token = environment.kubectl("create", "token", "idi-jede", "--audience=idi")
    assert token


@pytest.mark.requirement("K1", "D1")
def test_a_restart_under_load_loses_no_request(environment: Environment) -> None:
    load = environment.load("load-restart", "/open/jede/call/cam/echo", 25)
    environment.done("restart", "cam")
    environment.done("scale", "cam=3")
    environment.done("scale", "cam=2")
    verdict = judge(environment.history(load))
    print(f"restart and scale under load: {verdict}")
    assert verdict.faults == []
    assert verdict.sent > 200


@pytest.mark.requirement("K1", "C2")
def test_a_bad_image_stops_the_push_and_the_old_version_serves(environment: Environment) -> None:
    text = (environment.folder / "platform.yaml").read_text()
    good = environment.images["standin-python"]
    bad = good[:-4] + "0000"
    head, tail = text.split("  dere:", 1)
    (environment.folder / "platform.yaml").write_text(head + "  dere:" + tail.replace(good, bad, 1))
    try:
        said = environment.idi("up")
        assert said.code == 1
        assert "dere" in said.out + said.err
        assert "image" in said.out + said.err
        assert environment.ready()["dere"] == 1
        dere = next(
            pod
            for pod in environment.pods("idi.dev/module=dere")
            if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"]["conditions"])
        )
        assert called(environment, dere["metadata"]["name"], "http://127.0.0.1:20001/ready")[0] == 200
    finally:
        (environment.folder / "platform.yaml").write_text(text)
        environment.done("up")
    assert environment.ready()["dere"] == 1


@pytest.mark.requirement("K1", "D1")
def test_control_killed_stops_no_traffic_and_goes_on(environment: Environment) -> None:
    load = environment.load("load-control", "/open/jede/call/cam/echo", 15)
    environment.kubectl("delete", "pod", "control-0", "--grace-period=0", "--force")
    environment.until(lambda: environment.idi("status").code == 0, 90, "control to be back")
    verdict = judge(environment.history(load))
    print(f"control killed under load: {verdict}")
    assert verdict.faults == []
    assert "No changes" in environment.done("plan").out
    environment.done("scale", "cam=3")
    environment.done("scale", "cam=2")
