"""Two modules with the SDK: `orders` asks `stock` for a price and publishes, `stock` hears of it.

Data says how it fares: `fails` is how many attempts fail, `again_s` asks for a pause, `gives_up` for none at all.
"""

import asyncio
import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from idi.module import Event, GiveUp, Module, Request, Retry, Secret, SecretFile, tracing


@dataclass
class Config:
    tip: int
    tables: list[str]
    patience: timedelta
    password: Secret
    key: SecretFile


@dataclass
class Price:
    price: int
    caller: str
    trace: str


@dataclass
class Placed:
    fails: int = 0
    again_s: float = 0.0
    gives_up: bool = False
    items: list[str] = field(default_factory=list)


orders, stock = Module(Config), Module()
stock_of_orders = orders.peers.stock


@orders.post("/order/{item}")
async def order(request: Request) -> object:
    item = request.params["item"]
    price = (await stock_of_orders.get(f"/items/{item}")).json(Price)
    wanted = request.json(Placed)
    placed = await orders.events.publish("order.placed", wanted, subject=item, id=request.query["id"])
    return {"price": price, "total": price.price + orders.config.tip, "event": placed.id}


@orders.post("/batch")
async def batch(request: Request) -> object:
    await orders.events.publish_all([Event.of("order.placed", {}, id=id) for id in request.json(list[str])])
    return None


@orders.get("/settings")
async def settings(_: Request) -> object:
    told = orders.config
    return {
        "tip": told.tip,
        "tables": told.tables,
        "patience_s": told.patience.total_seconds(),
        "password": told.password.value,
        "key": told.key.value,
        "shown": repr(told),
    }


@orders.get("/undeclared")
async def undeclared(_: Request) -> object:
    return (await orders.peers.kitchen.get("/")).json()


@stock.get("/items/{item}")
async def price(request: Request) -> object:
    return Price(3, request.caller, tracing.trace_id())


@stock.get("/slow")
async def slow(_: Request) -> object:
    await asyncio.sleep(0.25)
    return {"instance": os.environ["IDI_INSTANCE"]}


def note(line: list[object]) -> None:
    with open("heard", "a") as file:
        file.write(json.dumps(line) + "\n")


@stock.on("order.placed")
async def placed(event: Event) -> None:
    await asyncio.to_thread(note, [event.id, event.attempt, event.key, event.subject, tracing.trace_id()])
    told = event.json(Placed)
    if told.gives_up:
        raise GiveUp("no such order")
    if event.attempt <= told.fails:
        raise Retry("not yet", told.again_s) if told.again_s else KeyError("a mistake")


if __name__ == "__main__":
    modules: dict[str, Module[Any]] = {"orders": orders, "stock": stock}
    modules[os.environ["IDI_MODULE"]].run()
