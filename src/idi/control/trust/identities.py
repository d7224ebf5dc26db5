"""Certificates follow instances: one for each that appears, none for what is gone.

Issuing is asked for the moment an instance is seen (its process is only starting then), so that the
certificate is usually there before its proxy asks for it. While the authority is down the renewal keeps
trying; the instance waits, unready, and says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from idi.declaration.types import ModuleName
from idi.parts.certificates.interface import Certificate
from idi.parts.certificates.renewal import Renewal
from idi.parts.errors import PartError
from idi.parts.gateway.interface import DataPlane, Identity
from idi.world.events import Event, InstanceGone, InstanceSeen

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Identities:
    """`identity` gives the SPIFFE id of a module (or part) in this environment, empty while nothing is
    declared. `renewal` comes when the authority is there; what was asked for before waits for it."""

    plane: DataPlane
    identity: Callable[[str], str]
    tasks: asyncio.TaskGroup
    renewal: Renewal | None = None
    _kept: dict[str, Callable[[Certificate], None]] = field(default_factory=dict)
    """Who takes certificates that no proxy gets."""
    _nodes: dict[str, str] = field(default_factory=dict)
    _workloads: dict[str, str] = field(default_factory=dict)

    def keep(self, node: str, workload: str, take: Callable[[Certificate], None]) -> None:
        """One that has no proxy takes its certificates itself."""
        self._kept[node] = take
        self.add(node, workload)

    def deliver(self, node: str, certificate: Certificate) -> None:
        if node in self._kept:
            self._kept[node](certificate)
            return
        self.plane.set_identity(
            node,
            Identity(
                certificate.spiffe_id,
                certificate.chain,
                certificate.key,
                certificate.roots,
                certificate.not_after,
            ),
        )

    def hear(self, event: Event) -> None:
        """A listener of the loop."""
        if isinstance(event, InstanceSeen):
            self.add(event.instance.id, event.instance.module)
        elif isinstance(event, InstanceGone):
            self.remove(event.instance)

    def add(self, node: str, workload: str) -> None:
        self._workloads[node] = workload
        spiffe_id = self.identity(ModuleName(workload))
        if not spiffe_id or self._nodes.get(node) == spiffe_id:
            return
        self._nodes[node] = spiffe_id
        if self.renewal is not None:
            self.tasks.create_task(self._ensure(self.renewal, node, spiffe_id))

    def declared(self) -> None:
        """There is a declaration, or another one: who was there before has an identity of it now."""
        for node, workload in self._workloads.items():
            self.add(node, workload)

    def remove(self, node: str) -> None:
        self._workloads.pop(node, None)
        self._nodes.pop(node, None)
        if self.renewal is not None:
            self.renewal.remove(node)

    def begin(self, renewal: Renewal) -> None:
        """The authority is there: everything that waited is issued now, beside each other."""
        self.renewal = renewal
        for node, spiffe_id in self._nodes.items():
            self.tasks.create_task(self._ensure(renewal, node, spiffe_id))

    def lacks(self, node: str) -> bool:
        """Whether it waits for its first certificate."""
        if node not in self._nodes:
            return False
        standing = self.renewal.standing() if self.renewal is not None else ()
        return not any(each.node == node and each.not_after for each in standing)

    async def _ensure(self, renewal: Renewal, node: str, spiffe_id: str) -> None:
        if self._nodes.get(node) != spiffe_id:
            return  # it went before its turn came
        try:
            await renewal.ensure(node, spiffe_id)
        except PartError as error:
            log.warning("certificate of %s waits: %s", node, error)
        except Exception:  # such as a connection that `down` has closed: no reason to end control
            log.exception("certificate of %s", node)
