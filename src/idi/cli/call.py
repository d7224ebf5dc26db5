"""`idi call`: ask a module through the gateway, with a token of the operator's own."""

from __future__ import annotations

import json
import os
import sys

from idi.api.client import Answered
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, from_error, usage
from idi.cli.gateway import Answer, patience_of, request
from idi.cli.invocation import Invocation
from idi.cli.names import check_modules
from idi.cli.parser import seconds
from idi.cli.refusal import hint, issuer_of, refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

    from idi.api.types import StatusView


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
    target = f"/v1/{options.module}{path}"
    answer = request(url, method, target, headers, body, options.timeout, patience_of(invocation))
    show(invocation, answer, mine, status)
    return DONE if answer.status < 400 else FAILED


def show(invocation: Invocation, answer: Answer, mine: str, status: StatusView) -> None:
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
        raise refused(answer, found, *hint(invocation, answer, mine, status))
    if found is not None and screen.terminal:
        screen.out(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(answer.body)
        if screen.terminal and not answer.body.endswith(b"\n"):
            sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()


def own_token(invocation: Invocation) -> str:
    try:
        return invocation.client().token({})["token"]
    except Answered as error:
        failure = from_error(error)
        if issuer_of(invocation):
            failure.way_out += " Then: -H 'authorization: Bearer TOKEN'"
        raise failure from error


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
        if not text.isascii():
            raise usage(f"'{text}' is no header: it has letters beyond ASCII.", "Encode its value.")
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
