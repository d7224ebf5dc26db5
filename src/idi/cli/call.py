"""`idi call`: ask a module through the gateway, with a token of the operator's own."""

from __future__ import annotations

import json
import os
import sys
import time

from idi.api.client import Answered
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, Failure, from_error, usage
from idi.cli.gateway import Answer, request
from idi.cli.invocation import Invocation
from idi.cli.names import check_modules
from idi.cli.parser import seconds
from idi.cli.words import age, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("module", metavar="MODULE")
    parser.add_argument("path", metavar="PATH", nargs="?", default="/", help="below /v1/MODULE (default: /)")
    parser.add_argument("-X", "--method", metavar="METHOD", help="default: GET, or POST with -d")
    parser.add_argument("-d", "--data", metavar="DATA", help="the body; @FILE reads a file, - reads stdin")
    parser.add_argument("-H", "--header", action="append", default=[], metavar="'NAME: VALUE'")
    parser.add_argument("-i", "--include", action="store_true", help="show status and headers too")
    parser.add_argument("--timeout", type=seconds, default=30.0, metavar="TIME", help="default: 30s")


def run(invocation: Invocation) -> int:
    options = invocation.options
    path = options.path if options.path.startswith("/") else f"/{options.path}"
    body = body_of(options.data)
    method = (options.method or ("GET" if body is None else "POST")).upper()
    headers = headers_of(options.header)
    status = check_modules(invocation, [options.module])
    if body is not None:
        headers.setdefault("content-type", "application/json" if looks_like_json(body) else "text/plain")
    mine = headers.get("authorization", "")
    if not mine:
        headers["authorization"] = f"Bearer {own_token(invocation)}"
    url = status["gateway"]["url"]
    answer = request(url, method, f"/v1/{options.module}{path}", headers, body, options.timeout)
    show(invocation, answer, mine)
    return DONE if answer.status < 400 else FAILED


def show(invocation: Invocation, answer: Answer, mine: str) -> None:
    """`mine` is the authorization that was given by hand, if one was."""
    screen = invocation.screen
    found = answer.document() if answer.is_json else None
    if invocation.json:
        body: Any = found if found is not None else answer.body.decode("utf-8", "replace")
        headers = {name.lower(): value for name, value in answer.headers}
        screen.document({"status": answer.status, "headers": headers, "body": body})
        return
    if invocation.options.include:
        screen.out(f"{answer.status}")
        for name, value in answer.headers:
            screen.out(f"{name.lower()}: {value}")
        screen.out()
    if answer.status >= 400:
        raise refused(answer, found, *hint(invocation, answer, mine))
    if found is not None and screen.terminal:
        screen.out(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(answer.body)
        if screen.terminal and not answer.body.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


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


def hint(invocation: Invocation, answer: Answer, mine: str) -> tuple[str, str]:
    """Why the gateway refused, where that can be seen from here, and what helps."""
    if answer.status == 404:
        return unrouted(invocation), ""
    if answer.status == 401 and mine:
        return flaw(mine), source(invocation)
    if answer.status == 403 and mine:
        return "", f"Which scopes a route needs stands in {invocation.file}, under its routes."
    return "", ""


def own_token(invocation: Invocation) -> str:
    try:
        return invocation.client().token({})["token"]
    except Answered as error:
        failure = from_error(error)
        if issuer_of(invocation):
            failure.way_out += " Then: -H 'authorization: Bearer TOKEN'"
        raise failure from error


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


def body_of(data: str | None) -> bytes | None:
    if data is None:
        return None
    if data == "-":
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            with open(data[1:], "rb") as file:
                return file.read()
        except OSError as error:
            raise usage(f"{data[1:]} cannot be read: {error.strerror}.") from error
    return os.fsencode(data)


def headers_of(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip() or "\n" in text or "\r" in text:
            raise usage(f"'{text}' is no header.", "Write -H 'name: value'.")
        found[name.strip().lower()] = value.strip()
    return found


def looks_like_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


COMMANDS = {
    "call": Command(
        run,
        arguments,
        examples=(
            "idi call jede /",
            "idi call jede /echo -d '{\"a\": 1}'",
            "idi call jede / --json | jq .status",
        ),
        about="Ask a module through the gateway, as an outside client would, with a short-lived token of the\n"
        "operator's own. Exit code 1 when the answer is an error.",
    )
}
