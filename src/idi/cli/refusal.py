"""Why a call came back with an error, as far as it can be seen from here, and what helps."""

from __future__ import annotations

import json
import time

from idi.cli.failure import Failure
from idi.cli.gateway import Answer
from idi.cli.invocation import Invocation
from idi.cli.terminal.words import age, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from idi.api.types import StatusView


def refused(answer: Answer, problem: Any, more: str = "", way_out: str = "") -> Failure:
    """An error of the gateway or the module, said as we say our own; `more` is what can be seen of it from here."""
    request_id = answer.header("x-request-id")
    found = "\n".join(filter(None, [way_out, f"Request {request_id}." if request_id else ""]))
    if isinstance(problem, dict) and (problem.get("detail") or problem.get("title")):
        title, detail = str(problem.get("title", "")), str(problem.get("detail", ""))
        why = f"{plain(detail).rstrip('.')}: {more}" if detail and more else plain(detail) or more
        return Failure(f"{answer.status} {plain(title)}", why, found)
    lines = answer.body[:2000].decode("utf-8", "replace").splitlines()[:10]
    return Failure(f"{answer.status}", "", found, lines=[plain(line) for line in lines])


def hint(invocation: Invocation, answer: Answer, mine: str, status: StatusView) -> tuple[str, str]:
    """Why the gateway refused, where that can be seen from here, and what helps."""
    if answer.status == 404:
        return unrouted(invocation), ""
    if answer.status == 503:
        return unready(invocation, status)
    if answer.status == 401 and mine:
        return flaw(mine), source(invocation)
    if answer.status == 403 and mine:
        return "", f"Which scopes a route needs stands in {invocation.file}, under its routes."
    return "", ""


def unready(invocation: Invocation, status: StatusView) -> tuple[str, str]:
    name = invocation.options.module
    module = next((m for m in status["modules"] if m["name"] == name), None)
    if module is None or module["ready"]:
        return "", ""
    if not module["desired"]:
        return f"{name} has 0 instances.", f"{invocation.command_line(f'scale {name}=1')} starts one."
    reason = f": {plain(module['reason'])}" if module["reason"] else ""
    return f"{name} is {module['state']}{reason}.", f"{invocation.command_line(f'logs {name}')} says more."


def issuer_of(invocation: Invocation) -> str:
    """The address of the issuer that somebody else runs; empty where it is ours."""
    from idi.cli.declared import declared

    platform = declared(invocation)
    return getattr(platform.gateway.issuer, "url", "") if platform else ""


def source(invocation: Invocation) -> str:
    """Where good tokens come from."""
    if url := issuer_of(invocation):
        return f"Tokens come from {url}."
    return f"{invocation.command_line('token')} makes one; without -H authorization, call takes one itself."


def flaw(authorization: str) -> str:
    """What can be seen of a token without its keys; the gateway, which has them, says less to strangers."""
    import base64

    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        return "it is sent as 'Bearer TOKEN'."
    try:
        payload = token.strip().split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        late = time.time() - float(end)
    except (IndexError, ValueError, KeyError, TypeError):
        return "what was given is no token with an end (a JWT with 'exp')."
    return f"the token that was given ended {age(late)} ago." if late > 0 else ""


def unrouted(invocation: Invocation) -> str:
    """Why nothing is served below /v1/MODULE, as the declaration has it."""
    from idi.cli.declared import declared
    from idi.declaration.nearest import listed

    name = invocation.options.module
    platform = declared(invocation)
    module = next((m for m in platform.modules.values() if m.name == name), None) if platform else None
    if platform is None or module is None:
        return ""
    if not module.routes:
        callers = [m.name for m in platform.modules.values() if name in m.calls]
        who = f"only {listed(callers)} may call it, nobody from outside" if callers else "nobody may call it"
        return f"{name} has no route in {invocation.file}; {who}."
    paths = [route.path for route in module.routes]
    if not any(path.startswith(f"/v1/{name}/") or f"/v1/{name}/".startswith(path) for path in paths):
        return f"{name} is reached at {listed(paths)}, not below /v1/{name}/."
    return ""
