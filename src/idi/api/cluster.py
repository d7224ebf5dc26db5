"""A cluster from the command line: who I am there, what I may, a way to control, and its documents.

Each call is one run of kubectl under the user's own kubeconfig, so everything that logs them in there logs them in
here. Errors say what happened and what helps; all that means "not reachable" ends a command with the exit code for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from idi.api.forward import Forward
from idi.api.kubectl import (
    REQUEST_S,
    Denied,
    Failed,
    Missing,
    NoContext,
    Said,
    Unreachable,
    document,
    documents,
    explain,
    find,
    run,
)
from idi.parts.clients.kubernetes_pod import is_ready, trouble
from idi.parts.errors import IdiError

__all__ = [
    "Cluster",
    "Denied",
    "Failed",
    "Missing",
    "NoContext",
    "Unreachable",
    "Versions",
    "is_ready",
    "trouble_of",
]

AUDIENCE = "idi"
TOKEN_LIFE = "10m"
"""The least that Kubernetes gives; a command takes a new one each time."""
FIELD_MANAGER = "idi"
POD_WAIT_S = 20
_TARGET = re.compile(r"[a-z]+(\.[a-z0-9.-]+)?/[a-z0-9]([a-z0-9.-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Versions:
    """Of kubectl and of the API server, like `1.34.4`."""

    client: str
    server: str


@dataclass(frozen=True)
class Cluster:
    """One namespace of the cluster that a context of the user's kubeconfig names."""

    context: str
    namespace: str
    kubectl: str = field(default_factory=find)

    def token(self, role: str) -> str:
        """A short token that proves to control that its holder has the role; it is good for nothing else."""
        doing = f"becoming {role}"
        arguments = ["create", "token", f"role.{role}", f"--audience={AUDIENCE}", f"--duration={TOKEN_LIFE}"]
        try:
            token = self._ask(doing, *arguments).out.decode("ascii", "replace").strip()
        except Missing as error:
            raise Missing(
                f"There is no role {role} in namespace {self.namespace} at the cluster of context {self.context}.",
                f"Install the platform there first; which there are: kubectl --context {self.context} "
                f"get serviceaccounts -n {self.namespace}",
            ) from error
        if not token:
            raise Failed(f"kubectl gave no token ({doing}).")
        return token

    def forward(self, target: str, port: int) -> Forward:
        """A local port that leads to `target` (`service/control`); for `with` and `async with`."""
        if not _TARGET.fullmatch(target):
            raise ValueError(f"{target!r} is no KIND/NAME")
        doing = f"reaching {target}"
        command = [*self._command(), "port-forward", "--address=127.0.0.1"]
        command += [f"--pod-running-timeout={POD_WAIT_S}s", target]
        return Forward(command, port, lambda said: self._explain(doing, said))

    def can(self, verb: str, resource: str, *, subresource: str = "") -> bool:
        """Whether the user may; `resource` like `deployments.apps` or `secrets/NAME`."""
        arguments = ["auth", "can-i", f"--subresource={subresource}", "--", verb, resource]
        said = self._run(*arguments)
        answer = said.out.decode("ascii", "replace").strip()
        if answer.startswith(("yes", "no")):
            return answer.startswith("yes")
        raise self._explain(f"asking whether you may {verb} {resource}", said.err)

    def get(self, kind: str, name: str = "", *, labels: str = "") -> dict[str, Any] | None:
        """One object, None where there is none; without a name the list of them."""
        arguments = ["get", "--output=json", "--ignore-not-found"]
        arguments += [f"--selector={labels}"] if labels else []
        out = self._ask(
            f"reading {kind} {name}".strip(), *arguments, "--", kind, *([name] if name else [])
        ).out
        if not out.strip():
            return None if name else {"apiVersion": "v1", "kind": "List", "items": []}
        return document(out)

    def apply(
        self, given: Mapping[str, Any], *, force: bool = False, dry_run: bool = False
    ) -> dict[str, Any]:
        """Server-side apply of a document or a `List` of them, through standard input: it may hold secrets."""
        arguments = [
            "apply",
            "--server-side",
            f"--field-manager={FIELD_MANAGER}",
            "--output=json",
            "--filename=-",
        ]
        arguments += ["--force-conflicts"] if force else []
        arguments += ["--dry-run=server"] if dry_run else []
        metadata = given.get("metadata")
        name = metadata.get("name", "") if isinstance(metadata, Mapping) else ""
        doing = f"applying {given.get('kind', '')} {name}".strip()
        return document(self._ask(doing, *arguments, stdin=json.dumps(given).encode()).out)

    def delete(self, kind: str, name: str) -> None:
        """Ask for its removal; it is not waited for, and that there is none is fine."""
        doing = f"removing {kind} {name}"
        self._ask(doing, "delete", "--ignore-not-found", "--wait=false", "--", kind, name)

    def log(self, pod: str, *, most: int = 20) -> str:
        """The last lines of what a pod with one container said."""
        out = self._ask(f"reading the log of {pod}", "logs", f"--tail={most}", "--", pod).out
        return out.decode("utf-8", "replace")

    def who(self) -> str:
        """The user that the cluster takes this one for."""
        told = document(self._ask("asking who you are", "auth", "whoami", "--output=json").out)
        return str(told.get("status", {}).get("userInfo", {}).get("username", ""))

    def may(self, asked: Sequence[Mapping[str, str]]) -> list[bool]:
        """Whether the user may do each of these (`resourceAttributes` of Kubernetes), all in one run: the API server's
        own answer, also where it is not RBAC alone that decides."""
        reviews = [
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": dict(one)},
            }
            for one in asked
        ]
        given = json.dumps({"apiVersion": "v1", "kind": "List", "items": reviews}).encode()
        arguments = ["create", "--validate=false", "--output=json", "--filename=-"]
        out = self._ask("asking what you may do", *arguments, stdin=given).out
        found = [bool(one.get("status", {}).get("allowed")) for one in documents(out)]
        if len(found) != len(asked):
            raise Failed(f"kubectl gave {len(found)} answers to {len(asked)} questions.")
        return found

    def version(self) -> Versions:
        told = document(self._ask("asking for its version", "version", "--output=json").out)
        client, server = (
            str((told.get(f"{side}Version") or {}).get("gitVersion", "")).removeprefix("v")
            for side in ("client", "server")
        )
        if not server:
            raise Unreachable(f"The cluster of context {self.context} does not tell its version.")
        return Versions(client, server)

    def _command(self) -> list[str]:
        # As one word each: whatever they hold, they are values and no options.
        return [self.kubectl, f"--context={self.context}", f"--namespace={self.namespace}"]

    def _run(self, *arguments: str, stdin: bytes = b"") -> Said:
        return run([*self._command(), f"--request-timeout={REQUEST_S}s", *arguments], stdin)

    def _ask(self, doing: str, *arguments: str, stdin: bytes = b"") -> Said:
        said = self._run(*arguments, stdin=stdin)
        if said.code:
            raise self._explain(doing, said.err)
        return said

    def _explain(self, doing: str, said: str) -> IdiError:
        return explain(self.kubectl, self.context, self.namespace, doing, said)


def trouble_of(pod: Mapping[str, Any], main: str) -> str:
    """Why a pod does not run; empty where nothing keeps it from that. `main` is the container that is meant by "it"."""
    return trouble(pod.get("status", {}), main)[1]
