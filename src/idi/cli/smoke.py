"""`idi test smoke`: what runs, checked from outside as a client would see it; asks with GET only."""

from __future__ import annotations

import time
from collections.abc import Iterator

from idi.cli.commands import Command
from idi.cli.declared import declared
from idi.cli.failure import DONE, FAILED
from idi.cli.gateway import Answer, patience_of, request
from idi.cli.invocation import Invocation
from idi.cli.terminal.words import plain, took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

    from idi.api.types import StatusView
    from idi.declaration.types import Platform, Route

GARBAGE = "Bearer garbage.garbage.garbage"
NOWHERE = "/v1/no-such-module-as-this/"
PROBLEM_KEYS = ("type", "title", "status", "detail")
TRIES = 4


class Check:
    """One thing that must hold; `why` says what was found where it does not."""

    def __init__(self, name: str, why: str = "", detail: str = "", seconds: float = 0.0) -> None:
        self.name = name
        self.ok = not why
        self.why = why
        self.detail = detail
        self.seconds = seconds

    def document(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "ok": self.ok,
            "detail": self.why or self.detail,
            "seconds": round(self.seconds, 4),
        }


def arguments(parser: ArgumentParser) -> None:
    from idi.cli.parser import add_globals

    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    smoke = what.add_parser(
        "smoke", help="every module is found, ready, reached with a token and not without one"
    )
    add_globals(smoke)


def run(invocation: Invocation) -> int:
    screen = invocation.screen
    begun = time.monotonic()
    every: list[Check] = []
    for check in checks(invocation):
        every.append(check)
        mark = ("✓ ", "green") if check.ok else ("✗ ", "alarm")
        more = f"  {plain(check.why or check.detail)}" if check.why or check.detail else ""
        screen.out([("  ", ""), mark, (check.name, ""), (more, "" if check.why else "dim")])
    failed = [check for check in every if not check.ok]
    if invocation.json:
        screen.document({"ok": not failed, "checks": [check.document() for check in every]})
    else:
        spent = took(time.monotonic() - begun)
        if failed:
            screen.out([(f"{len(failed)} of {len(every)} checks failed", "alarm"), (f" in {spent}.", "")])
        else:
            screen.out([(f"All {len(every)} checks passed", "green"), (f" in {spent}.", "")])
    return FAILED if failed else DONE


def checks(invocation: Invocation) -> Iterator[Check]:
    client = invocation.client()
    status = client.status()
    yield from discovery(status)
    asker = Asker(status["gateway"]["url"], patience_of(invocation))
    yield asker.check("gateway  /healthz", "/healthz", expect=200)
    token = f"Bearer {client.token({})['token']}"
    yield asker.check("gateway  an unknown path", NOWHERE, token, expect=404, problem=True)
    platform = declared(invocation)
    for module in status["modules"]:
        name = module["name"]
        route, reason = route_of(platform, name)
        path = route.path if route else f"/v1/{name}/"
        if not reason and not (route and route.public):
            yield asker.check(f"{name}  without a token", path, expect=401, problem=True)
            yield asker.check(f"{name}  with a wrong token", path, GARBAGE, expect=401, problem=True)
        if reason:
            yield Check(f"{name}  routes", detail=reason)
        else:
            yield asker.check(f"{name}  with a token", path, token)


def discovery(status: StatusView) -> Iterator[Check]:
    for module in status["modules"]:
        ready, desired = module["ready"], module["desired"]
        ids = {instance["id"] for instance in module["instances"] if instance["state"] == "ready"}
        why = ""
        if ready < desired or module["state"] != "ready":
            why = f"{ready} of {desired} ready, {module['state']}: {module['reason'] or 'no reason is known'}"
        elif len(ids) < desired:
            why = f"{len(ids)} instances are listed as ready, {desired} are wanted"
        yield Check(f"{module['name']}  is found", why, f"{ready} of {desired} ready")
    if status["rejections"]:
        first = status["rejections"][0]
        yield Check("gateway  takes its updates", f"{first['resource']}: {first['message']}")


def route_of(platform: Platform | None, name: str) -> tuple[Route | None, str]:
    """A route that a plain GET takes, or why there is none."""
    if platform is None:
        return None, ""
    module = next((module for module in platform.modules.values() if module.name == name), None)
    if module is None:
        return None, ""
    if not module.routes:
        return None, "none is declared: only other modules reach it"
    for route in module.routes:
        if not route.host and not route.headers and (not route.methods or "GET" in route.methods):
            return route, ""
    return None, "no route takes a plain GET"


class Asker:
    """Asks the gateway and judges the answer."""

    def __init__(self, url: str, patience: float) -> None:
        self.url = url
        self.patience = patience

    def check(
        self, name: str, path: str, authorization: str = "", *, expect: int = 0, problem: bool = False
    ) -> Check:
        """`expect` 0: anything but a refusal or a failure of the server. Every answer has an x-request-id."""
        headers = {"authorization": authorization} if authorization else {}
        begun = time.monotonic()
        answer = self.ask(path, headers)
        seconds = time.monotonic() - begun
        why = self.judge(answer, expect, problem=problem)
        return Check(name, why, f"{answer.status}, {took(seconds)}", seconds)

    def ask(self, path: str, headers: dict[str, str]) -> Answer:
        """The answer; a limit is waited for, as a client should."""
        answer = request(self.url, "GET", path, headers, timeout=10.0, patience=self.patience)
        for _ in range(TRIES - 1):
            if answer.status != 429:
                break
            after = answer.header("retry-after")
            time.sleep(min(float(after) if after.isdigit() else 1.0, 3.0))
            answer = request(self.url, "GET", path, headers, timeout=10.0, patience=self.patience)
        return answer

    def judge(self, answer: Answer, expect: int, *, problem: bool) -> str:
        if expect and answer.status != expect:
            return f"answered {answer.status}, expected {expect}{said(answer)}"
        if not expect and (answer.status >= 500 or answer.status in (401, 403)):
            return f"answered {answer.status}{said(answer)}"
        if not answer.header("x-request-id"):
            return "the answer has no x-request-id"
        if problem:
            return self.judge_problem(answer)
        return ""

    def judge_problem(self, answer: Answer) -> str:
        if answer.header("content-type").partition(";")[0].strip() != "application/problem+json":
            return f"the error is {answer.header('content-type') or 'untyped'}, not application/problem+json"
        document = answer.document()
        if not isinstance(document, dict):
            return "the problem document is no JSON object"
        missing = [key for key in PROBLEM_KEYS if key not in document]
        if missing:
            return f"the problem document lacks {', '.join(missing)}"
        if document["status"] != answer.status:
            return f"the problem document says {document['status']}, the answer {answer.status}"
        return ""


def said(answer: Answer) -> str:
    """What an unexpected answer says about itself."""
    document = answer.document()
    text = document.get("detail", "") if isinstance(document, dict) else ""
    return f" ({text})" if text else ""


COMMANDS = {
    "test": Command(
        run,
        arguments,
        examples=("idi test smoke", "idi test smoke --json"),
        about="Check what runs from outside. smoke: every module is found and ready; the gateway answers, lets\n"
        "a token through and refuses to be asked without one or with a wrong one; errors are problem\n"
        "documents and every answer has an x-request-id. Asks with GET only. Exit code 1 if one fails.",
    )
}
