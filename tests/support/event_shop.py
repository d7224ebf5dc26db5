"""A platform with events: who publishes, who handles, who consumes; and what tests say to it."""

from __future__ import annotations

import json
from typing import Any

import httpx

from tests.support.platform import ROOT, Platform

EVENTFUL = (ROOT / "tests" / "support" / "eventful.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms}, grace: 2s}
modules:
  orders: {run: exec python eventful.py, publishes: [order.placed]}
  mail: {run: exec python eventful.py, handles: {order.placed: /placed}, config: {LOG: heard-mail}}
  stock: {run: exec python eventful.py, consumes: [order.placed], config: {LOG: heard-stock, CONSUMES: order.placed}}
  pas: {run: exec python eventful.py, publishes: [pas.done]}
  web: {run: exec python eventful.py}
events:
  order.placed: {deliver: {attempts: 3, backoff: 100ms..400ms}}
"""


def urls(shop: Platform, module: str) -> dict[str, str]:
    [instance] = shop.instances(module)
    found: dict[str, str] = httpx.get(f"http://{instance['address']}/urls", trust_env=False).json()
    return found


def event(id: str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/test", "type": "order.placed", **more}


def publish(shop: Platform, document: object, module: str = "orders", **more: Any) -> httpx.Response:
    form = (
        "application/cloudevents-batch+json" if isinstance(document, list) else "application/cloudevents+json"
    )
    return httpx.post(
        urls(shop, module)["EVENTS_URL"],
        content=json.dumps(document),
        headers={"content-type": form, **more},
        trust_env=False,
        timeout=20,
    )


def letters(shop: Platform) -> list[dict[str, Any]]:
    """The dead letters that there are now."""
    return [json.loads(line) for line in shop.run("events", "dead", "--json").stdout.splitlines()]
