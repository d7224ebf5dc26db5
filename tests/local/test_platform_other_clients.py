"""Other people's clients, each official and none of them knowing the platform: the CloudEvents SDK with the relay, in
both forms and both ways, and NATS's client for Go with the broker.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from cloudevents.core.bindings.http import HTTPMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.support.go_program import go_program
from tests.support.platform import ROOT, Platform, platform, until

RECEIVES = (ROOT / "tests" / "support" / "cloudevents_module.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms}, grace: 2s}
modules:
  orders: {run: exec python receives.py, publishes: [order.placed]}
  mail: {run: exec python receives.py, handles: {order.placed: /placed}}
  stock: {run: exec python receives.py, consumes: [order.placed]}
"""
SOURCE = Path(__file__).parent / "bus_thirdparty"
pytestmark = pytest.mark.requirement("B1")


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, {"receives.py": RECEIVES}) as one:
        one.up()
        yield one


def environment(shop: Platform, module: str) -> dict[str, str]:
    [instance] = shop.instances(module)
    found: dict[str, str] = httpx.get(f"http://{instance['address']}/", trust_env=False).json()
    return found


def received(shop: Platform, id: str) -> list[dict[str, Any]]:
    path = shop.folder / "received"
    lines = path.read_text().splitlines() if path.exists() else []
    return [one for one in map(json.loads, lines) if one["id"] == id]


@pytest.mark.parametrize("form", [to_binary_event, to_structured_event])
def test_the_cloudevents_sdk_publishes_and_reads(
    shop: Platform, form: Callable[[CloudEvent], HTTPMessage]
) -> None:
    attributes = {
        "id": form.__name__, "source": "/sdk", "type": "order.placed", "specversion": "1.0", "time": datetime.now(UTC),
        "datacontenttype": "application/json", "subject": "Tee für \"zwei\" 50 %", "tenant": "a b",
    }  # fmt: skip
    message = form(CloudEvent(attributes, {"total": 12, "item": "Käse"}))
    answer = httpx.post(
        environment(shop, "orders")["EVENTS_URL"],
        content=message.body,
        headers=dict(message.headers),
        trust_env=False,
        timeout=20,
    )
    assert (answer.status_code, answer.json()) == (200, {"kept": 1}), answer.text
    until(lambda: received(shop, form.__name__))
    assert received(shop, form.__name__) == [
        {
            "id": form.__name__,
            "source": "/sdk",
            "subject": attributes["subject"],
            "tenant": "a b",
            "data": {"total": 12, "item": "Käse"},
        }
    ]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go_program(SOURCE, tmp_path_factory.mktemp("client"))


def run(client: Path, bus_url: str, *arguments: str) -> list[str]:
    done = subprocess.run(
        [str(client), *arguments],
        env={"BUS_URL": bus_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.timeout(700)
def test_nats_client_for_go_publishes_and_takes(shop: Platform, client: Path) -> None:
    orders, stock = (environment(shop, name)["BUS_URL"] for name in ("orders", "stock"))
    assert run(client, orders, "publish", "order.placed", "go-1") == ["order=placed"]
    until(lambda: received(shop, "go-1"))
    assert received(shop, "go-1")[0]["source"] == "/go"
    kept = len((shop.folder / "received").read_text().splitlines())
    taken = run(client, stock, "take", "order=placed", "stock", str(kept))
    assert taken[-1] == 'go-1 {"from": "go"}'
    refused = subprocess.run(
        [str(client), "publish", "order.placed", "x"], env={"BUS_URL": stock}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert refused.returncode == 1, "stock does not declare that it publishes"
