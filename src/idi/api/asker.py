"""Who asks, and what a role may ask for.

On a laptop the kernel says whose process is at the other end of the socket, and whoever runs the platform may do
everything. On a cluster a token proves a role (a service account that Kubernetes' own rules let somebody request a
token for); each role may do what its line in `RIGHTS` says, in the environment that its namespace is.
"""

from __future__ import annotations

from dataclasses import dataclass

from idi.parts.clients.machine import Peer
from idi.parts.errors import Refused

READ = frozenset(
    {
        "GET /v1/status",
        "GET /v1/watch",
        "GET /v1/config",
        "GET /v1/environment",
        "GET /v1/logs",
        "GET /v1/openapi.json",
        "POST /v1/plan",
    }
)
DEVELOP = frozenset(
    {
        "POST /v1/tokens",
        "GET /v1/events",
        "POST /v1/events",
        "GET /v1/dead-letters",
        "POST /v1/dead-letters/replay",
        "GET /v1/secrets",
        "GET /v1/keys",
    }
)
DEPLOY = frozenset({"up", "deploy", "scale", "restart", "config"})
OPERATE = frozenset({"down", "secret", "keys", "client-secret"})
CHANGES = "POST /v1/changes"
AUDIT = "GET /v1/audit"

RIGHTS: dict[str, frozenset[str]] = {
    "viewer": READ,
    "auditor": READ | {AUDIT},
    "developer": READ | DEVELOP,
    "deployer": READ | DEVELOP | DEPLOY | {CHANGES},
    "operator": READ | DEVELOP | DEPLOY | OPERATE | {CHANGES, AUDIT},
}
"""By role: requests, and what a change may be. What needs a process of this machine (`idi run`) is nobody's there."""


@dataclass(frozen=True, slots=True)
class Role:
    """A role that a token proved. It is nobody's process."""

    name: str
    pid: int = 0

    def check(self, what: str) -> None:
        """Raises `Refused` where the role may not do that."""
        if what in RIGHTS.get(self.name, frozenset()):
            return
        able = [name for name, rights in RIGHTS.items() if what in rights]
        raise Refused(
            f"The role {self.name} may not do this ({what.removeprefix('POST ').removeprefix('GET ')}).",
            f"Who has the role {' or '.join(able)} may." if able else "It is for a laptop's platform only.",
        )


Asker = Peer | Role
