"""The agent's variables."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from idi.agent.settings import from_environment
from idi.declaration.readiness import Readiness
from idi.parts.errors import PartError

pytestmark = pytest.mark.requirement("K1")

GATEWAY = {"POD_NAME": "gw-1", "POD_IP": "10.0.0.9", "IDI_CONTROL": "https://control.shop.svc:8443"}
TOLD = {
    "readiness": {"port": "http", "every_s": 5},
    "ports": {"http": 20001},
    "module": "jede",
    "grace_s": 10,
}
MODULE = GATEWAY | {"IDI_AGENT": json.dumps(TOLD), "IDI_DRAIN_S": "12.5"}


def test_it_brings_nothing_more_of_the_declaration_along() -> None:
    """That would cost a twentieth of its memory, in every pod."""
    loads = "import sys, idi.agent.settings; print(*sorted(m for m in sys.modules if m.startswith('idi.declaration')))"
    said = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["idi.declaration", "idi.declaration.readiness"]


def test_a_modules_pod() -> None:
    settings = from_environment(MODULE)
    assert settings.module is not None
    assert settings.module.name == "jede"
    assert settings.module.port == 20001
    assert settings.module.readiness == Readiness(every_s=5)
    assert settings.control == ("control.shop.svc", 8443)
    assert (settings.address, settings.port, settings.drain_s) == ("10.0.0.9", 20000, 12.5)
    assert str(settings.bootstrap) == "/etc/idi/proxy/bootstrap.json"
    assert str(settings.roots) == "/etc/idi/proxy/ca.crt"
    assert str(settings.token) == "/var/run/idi/token/token"


def test_a_gateways_pod() -> None:
    assert from_environment(GATEWAY).module is None


def told(**other: object) -> str:
    return json.dumps(TOLD | other)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"POD_NAME": None}, "POD_NAME is missing"),
        ({"IDI_CONTROL": "http://control:8443"}, "not https://HOST:PORT"),
        ({"IDI_AGENT": "{"}, "Expecting property name"),
        ({"IDI_AGENT": told(readiness=None)}, "must have readiness and ports"),
        ({"IDI_AGENT": told(ports={})}, "must have readiness and ports"),
        ({"IDI_AGENT": told(readiness={"port": "grpc"})}, "asked on the port 'grpc'"),
        ({"IDI_AGENT": told(readiness={"hosts": 1})}, "hosts"),
        ({"IDI_AGENT": json.dumps({"ports": {"http": 1}})}, "readiness is missing"),
        ({"IDI_DRAIN_S": "soon"}, "soon"),
    ],
)
def test_a_mistake_is_said(change: dict[str, str | None], says: str) -> None:
    environment = {name: value for name, value in (MODULE | change).items() if value is not None}
    with pytest.raises(PartError, match="The agent cannot start") as caught:
        from_environment(environment)
    assert says in str(caught.value)
