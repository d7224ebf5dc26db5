"""What Helm says on its standard error, made into one sentence and a way out.

Helm hands the API server's words on, wrapped in its own, and a schema's findings line by line. What is recognised here
is told as what it means; all else is passed on shortened, because a message that is long hides what is wrong. No value
is repeated that Helm has not named itself, and no secret is ever a value.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from idi.parts.clients.quota_words import PATTERN, WAY_OUT, explained
from idi.parts.errors import PartError

LONGEST = 600
MOST_FINDINGS = 6

_NOISE = re.compile(r"^(level=|time=|[IWE]\d{4} |\{\"level\"|walk\.go|WARNING: )")
_AT = re.compile(r"(?:execution error at|template:) \(?[^ ]+\)?:? ?")
_FINDING = re.compile(r"^\s*- at '(?P<where>[^']*)': (?P<what>.+)$")
_FORBIDDEN = re.compile(
    r'(?P<who>User "[^"]+") cannot (?P<verb>\w+) resource "(?P<kind>[^"]+)" in API group "(?P<group>[^"]*)"'
)


class HelmError(PartError):
    """`kind` is what code may tell apart: quota, forbidden, values, busy, conflict, foreign, namespace, unreachable,
    late, missing, other."""

    def __init__(self, message: str, way_out: str = "", *, retryable: bool, kind: str) -> None:
        super().__init__(message, way_out, retryable=retryable)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class _Meaning:
    kind: str
    pattern: re.Pattern[str]
    told: Callable[[re.Match[str], str], str]
    way_out: str
    retryable: bool = False


def _plain(words: str) -> Callable[[re.Match[str], str], str]:
    return lambda _match, _said: words


_MEANINGS = (
    _Meaning(
        "quota",
        PATTERN,
        lambda match, _said: f"{explained(match[0])}.",
        WAY_OUT,
    ),
    _Meaning(
        "forbidden",
        _FORBIDDEN,
        lambda match, _said: (
            f"the cluster forbids it: {match['who']} may not {match['verb']} "
            f"{match['kind']}{'.' + match['group'] if match['group'] else ''} here."
        ),
        "Use a context whose user may, or have that right granted by an administrator of the namespace.",
    ),
    _Meaning(
        "busy",
        re.compile(
            r"another operation \(install/upgrade/rollback\) is in progress|already exists.*sh\.helm\.release"
        ),
        _plain("another Helm is at work on the same release, or was stopped in the middle of it."),
        "Wait until it is done; one that nobody works on any more is put right by the next attempt.",
        retryable=True,
    ),
    _Meaning(
        "missing",
        re.compile(r"release: not found|has no \d+ version"),
        _plain("there is no such release."),
        "See which there are: helm list --all --namespace NAMESPACE.",
    ),
    _Meaning(
        "namespace",
        re.compile(r'namespaces "(?P<name>[^"]+)" not found'),
        lambda match, _said: f"there is no namespace {match['name']}.",
        "Create it, with the label pod-security.kubernetes.io/enforce=restricted.",
    ),
    _Meaning(
        "foreign",
        re.compile(
            r"(?P<what>\w+ \"[^\"]+\") in namespace \"[^\"]*\" exists and cannot be imported into the current release"
            r"|invalid ownership metadata"
        ),
        lambda match, _said: (
            f"{match['what'] or 'something of that name'} is there already, and no release of this name made it."
        ),
        "Remove or rename it, or choose another namespace.",
    ),
    _Meaning(
        "conflict",
        re.compile(r"Apply failed with \d+ conflicts?: (?P<what>.{1,300})", re.DOTALL),
        lambda match, _said: f"somebody else has set the same field: {_one_line(match['what'])}.",
        "See who in `kubectl get ... --show-managed-fields`; what is in the declaration wins with the next change.",
    ),
    _Meaning(
        "unreachable",
        re.compile(
            r"cluster unreachable|connection refused|no such host|i/o timeout|TLS handshake timeout|EOF$"
            r"|etcdserver:|the server is currently unable|ServiceUnavailable|too many requests"
        ),
        lambda _match, said: f"the API server cannot be reached ({_short(said, 160)}).",
        "See whether `kubectl get --raw /readyz` with the same context answers.",
        retryable=True,
    ),
    _Meaning(
        "forbidden",
        re.compile(r"Unauthorized|must be logged in|provide credentials"),
        _plain("the API server does not know who asks."),
        "Log in again with the tool of that cluster, or choose another context.",
    ),
    _Meaning(
        "late",
        re.compile(r"context deadline exceeded|timed out waiting|context canceled|not ready"),
        lambda _match, said: f"it was not ready in time ({_short(said, 300)}).",
        "See why with `kubectl get pods` and `kubectl get events` in that namespace.",
        retryable=True,
    ),
)


def refusal(doing: str, said: str) -> HelmError:
    """The error for what Helm said; `doing` is what was attempted, such as `install jede`."""
    said = _without_noise(said)
    findings = [match for line in said.splitlines() if (match := _FINDING.match(line))]
    if findings:
        told = "; ".join(f"{_where(match['where'])}: {match['what']}" for match in findings[:MOST_FINDINGS])
        more = len(findings) - MOST_FINDINGS
        told += f"; and {more} more" if more > 0 else ""
        return HelmError(
            f"Cannot {doing}: its values are not what the chart takes: {_short(told, LONGEST)}.",
            "The chart's README.md lists every value.",
            retryable=False,
            kind="values",
        )
    if "execution error at" in said or "execution error at" in said.replace("\n", " "):
        return HelmError(
            f"Cannot {doing}: {_short(_AT.split(said)[-1].lstrip('(0123456789:) '), LONGEST)}",
            "The chart's README.md lists every value.",
            retryable=False,
            kind="values",
        )
    for meaning in _MEANINGS:
        if match := meaning.pattern.search(said):
            told = _short(meaning.told(match, said), LONGEST)
            return HelmError(
                f"Cannot {doing}: {told}", meaning.way_out, retryable=meaning.retryable, kind=meaning.kind
            )
    return HelmError(
        f"Cannot {doing}: {_short(said, LONGEST) or 'helm failed without a word'}",
        "",
        retryable=False,
        kind="other",
    )


def _without_noise(said: str) -> str:
    lines = (line for line in said.splitlines() if line.strip() and not _NOISE.match(line))
    return "\n".join(lines).removeprefix("Error: ").strip()


def _where(pointer: str) -> str:
    return pointer.strip("/").replace("/", ".") or "the values"


def _one_line(text: str) -> str:
    return " ".join(text.split()).rstrip(".")


def _short(text: str, longest: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
