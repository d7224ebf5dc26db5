"""Instances that IDI did not start: registered over the API, in the mesh like every other.

Whoever runs one registers its module and its loopback port. It gets a sidecar of its own (certificate,
policies, endpoints), is asked for its readiness as declared, and stays as long as its heartbeats come.
Registering is a change of the platform, so it is noted in the journal; heartbeats are not.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace

from idi.api.types import RegistrationRequest, RegistrationView
from idi.parts.discovery.registry import Registry
from idi.parts.errors import IdiError, Refused
from idi.parts.store.interface import Actor, Store
from idi.parts.targets.interface import Attaching
from idi.world.types import InstanceId, RevisionId, RevisionSpec

log = logging.getLogger(__name__)

REGISTERED = RevisionId("registered")
AFTER_RESTART_TTL_S = 30.0
REGISTRAR = Actor("idi", "registry")


@dataclass(slots=True)
class Registrations:
    registry: Registry
    target: Attaching
    store: Store
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def register(
        self, request: RegistrationRequest, spec: RevisionSpec, actor: Actor
    ) -> RegistrationView:
        """Attach the instance; `spec` is its module's as declared."""
        port, ttl_s = request["port"], float(request["ttl_s"])
        if not 1 <= port <= 65535:
            raise Refused(f"{port} is no port.", "Give the loopback port that the module listens on.")
        self.registry.check(ttl_s)
        instance = await self.target.attach(replace(spec, revision=REGISTERED, command=""), port)
        credential = self.registry.add(instance.id, ttl_s)
        self._changed.set()  # should the journal not take it, nobody can send heartbeats and it expires
        await self.store.note(
            actor, "register", {"port": port, "ttl_ms": round(1000 * ttl_s)}, subject=instance.id
        )
        mesh = next(iter(instance.mesh.values()))
        return {
            "instance": instance.id,
            "credential": credential,
            "ttl_s": ttl_s,
            "mesh_address": f"{instance.address}:{mesh}",
        }

    def heartbeat(self, instance: str, credential: str) -> None:
        self.registry.heartbeat(instance, credential)

    async def deregister(self, instance: str, credential: str, actor: Actor) -> None:
        self.registry.remove(instance, credential)
        await self._end(instance, "deregister", actor)

    async def dismiss(self, instance: InstanceId) -> None:
        """The platform lets it go: a step of a plan, so it is in the journal already. Idempotent."""
        self.registry.drop(instance)
        await self.target.detach(instance)

    async def keep(self) -> None:
        """Take back what is no longer heard of, until cancelled."""
        for instance in self.target.attached():  # adopted: each has one time to live to be heard of again
            self.registry.add(instance, AFTER_RESTART_TTL_S)
        while True:
            self._changed.clear()
            for expired in self.registry.expire():
                log.info("%s was not heard of in time", expired)
                try:
                    await self._end(expired, "expire", REGISTRAR)
                except IdiError as error:  # it is gone all the same
                    log.warning("the end of %s is not in the journal: %s", expired, error)
            try:
                async with asyncio.timeout(self.registry.next_s()):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _end(self, instance: str, action: str, actor: Actor) -> None:
        await self.target.detach(InstanceId(instance))
        await self.store.note(actor, action, {}, subject=instance)
