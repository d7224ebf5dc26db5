"""What IDI keeps where inside OpenBao: the names that whoever sets it up and whoever uses it share.

The root signs one intermediate and nothing else; the intermediate signs leaves through one role that
accepts only this environment's SPIFFE identities. The secrets of modules are in a key-value engine. The
control process has one credential that may sign, and keep and read secrets, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

ROOT_MOUNT = "pki-root"
LEAF_MOUNT = "pki"
LEAF_ROLE = "workload"
SIGN_PATH = f"{LEAF_MOUNT}/sign/{LEAF_ROLE}"
KV_MOUNT = "kv"
CONTROL_ROLE = "idi-control"
CONTROL_POLICY = "idi-control"


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose identities a store certifies, and for how long at most."""

    trust_domain: str
    environment: str
    life_s: float

    @property
    def prefix(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.environment}/"
