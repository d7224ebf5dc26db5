"""The status as it is now, for people: the table, and what one may want next. On the fast path, so it is lean."""

from __future__ import annotations

import time

from idi.cli.invocation import Invocation
from idi.cli.terminal.table import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import ModuleView, StatusView


def show(invocation: Invocation, view: StatusView) -> None:
    for line in table(view, time.time(), invocation.screen.width, hint(invocation, view)):
        invocation.screen.out(line)


def hint(invocation: Invocation, view: StatusView, end: str = "down") -> str:
    """What a person may want next; without `end`, Ctrl-C is the way to stop."""
    call = next((f"call {m['name']} {path}" for m in view["modules"] if (path := asked(m))), "")
    ill = next((m["name"] for m in view["modules"] if m["state"] in ("failed", "unready")), "")
    words = (call, f"logs {ill}" if ill else "logs", end)
    rest = [invocation.command_line(each) for each in words if each]
    return "   ".join([*rest, *([] if end else ["Ctrl-C stops all"])])


def asked(module: ModuleView) -> str:
    """A path under which `idi call` gets an answer of the module; empty where it would get none."""
    below = f"/v1/{module['name']}"
    routes = module.get("routes", [f"{below}/"])
    return next((r.removeprefix(below) for r in routes if module["ready"] and r.startswith(f"{below}/")), "")
