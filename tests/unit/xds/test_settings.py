"""What a replica is told."""

from pathlib import Path

import pytest

from idi.parts.errors import PartError
from idi.parts.gateway.envoy.replicas.replica import Control
from idi.xds.settings import Settings, from_environment


def test_what_the_chart_says_is_enough() -> None:
    settings = from_environment({"IDI_CONTROL": "https://control.shop-dev.svc:8443"})
    control = Control(
        "control.shop-dev.svc", 8444, Path("/etc/idi/proxy/ca.crt"), Path("/var/run/idi/token/token")
    )
    assert settings == Settings(control, ("::", 8444))


@pytest.mark.parametrize(
    "environment",
    [{}, {"IDI_CONTROL": "http://control:1"}, {"IDI_CONTROL": "https://c", "IDI_XDS_PORT": "x"}],
)
def test_a_mistake_is_said(environment: dict[str, str]) -> None:
    with pytest.raises(PartError, match="environment"):
        from_environment(environment)
