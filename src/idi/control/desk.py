"""Where every intention arrives: the API's view of control.

What is to change goes to the reconciler; everything else is looked up here, or asked of whoever knows it.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from idi import __version__
from idi.api.asker import Asker, Role
from idi.api.types import (
    AuditView,
    ChangeRequest,
    ConfigView,
    DeadView,
    EnvironmentView,
    EventView,
    KeysView,
    LogsRequest,
    LogView,
    PlanView,
    Progress,
    PublishedView,
    PublishRequest,
    RegistrationRequest,
    RegistrationView,
    ReplayRequest,
    ReplayView,
    RunView,
    SecretsView,
    StatusView,
    TokenRequest,
    TokenView,
    UpRequest,
)
from idi.api.views import Surroundings, plan_view, status_view
from idi.control.actors import user
from idi.control.audit_pages import AuditPages
from idi.control.bus.events import Events
from idi.control.change.configuration import configuration
from idi.control.change.reconciler import Reconciler
from idi.control.change.requests import load_declaration, module_named, running
from idi.control.change.runs import Runs
from idi.control.change.wanted import Wanted
from idi.control.figures import Figures
from idi.control.loop import Loop
from idi.control.registrations import Registrations
from idi.control.settings import Settings
from idi.control.trust.secrets import secrets_view
from idi.control.trust.tokens import Tokens, give_token
from idi.parts.errors import Refused
from idi.parts.store.interface import Actor, Store
from idi.plan.describe import describe_all
from idi.plan.difference import difference
from idi.plan.scaled import origins


class Printed(Protocol):
    """What modules and parts print."""

    async def read(self, request: LogsRequest) -> AsyncGenerator[LogView | None]: ...


@dataclass(slots=True)
class Desk:
    """`warnings` and `figures` come from compose, which knows the parts; `printed` is there where logs are no files of
    this machine."""

    reconciler: Reconciler
    warnings: Callable[[], list[str]]
    figures: Figures
    tokens: Tokens
    registrations: Registrations
    events: Events
    keys: Callable[[], Awaitable[KeysView]]
    runs: Runs
    pages: AuditPages
    printed: Printed | None = None
    started: float = field(default_factory=time.time)

    @property
    def settings(self) -> Settings:
        return self.reconciler.settings

    @property
    def store(self) -> Store:
        return self.reconciler.store

    @property
    def loop(self) -> Loop:
        return self.reconciler.loop

    @property
    def wanted(self) -> Wanted:
        return self.reconciler.wanted

    # --- what is ---------------------------------------------------------------------------------

    async def status(self, figures: bool) -> StatusView:
        settings = self.settings
        state = self.store.state
        warnings = [*filter(None, [self.reconciler.unread]), *self.warnings(), *state.alerts]
        around = Surroundings(
            environment=settings.environment,
            target="laptop" if settings.cluster is None else "kubernetes",
            pid=os.getpid(),
            since=self.started,
            version=__version__,
            gateway_url=settings.gateway_url(self.loop.platform),
            changing=self.reconciler.turns.running.title if self.reconciler.turns.running else "",
            rejections=self.reconciler.plane.rejections(),
            warnings=tuple(warnings),
            figures=await self.figures.look(self.loop.world) if figures else {},
            wants={
                one.id: wants
                for one in self.loop.world.instances()
                if one.state != "ready" and (wants := self.reconciler.executor.wants(one.id))
            },
        )
        return status_view(self.loop.platform, self.reconciler.desired(), self.loop.world, around)

    async def next_change(self, timeout_s: float) -> None:
        await self.loop.next_change(timeout_s)

    async def plan(self, request: UpRequest) -> PlanView:
        environment, overlays = self.settings.environment, self.wanted.overlays
        found = load_declaration(request["text"], request["file"], environment, overlays)
        wanted = replace(self.wanted, overlays=found.overlays)
        unseen = await self.reconciler.outlook.look()
        plan = difference(self.reconciler.desired_of(found.platform, wanted), self.loop.world)
        refused, untried = await self.reconciler.outlook.refused(plan, found.platform)
        values = origins(found.platform, found.overlays)
        notes = [*found.notes, *await self.reconciler.topics.ahead(found.platform), *unseen, *untried]
        warnings = [*found.warnings, *notes]
        return plan_view(describe_all(plan), values, warnings, self.loop.world, refused)

    async def config(self) -> ConfigView:
        running(self.wanted, self.loop.platform)
        return configuration(self.wanted, self.settings.environment)

    async def logs(self, request: LogsRequest) -> AsyncGenerator[LogView | None]:
        if self.printed is None:
            raise Refused(
                "Logs are files on this machine, and control is not asked for them.",
                f"idi logs reads them; they lie in {self.settings.paths.logs}.",
            )
        return await self.printed.read(request)

    async def list_secrets(self) -> SecretsView:
        return secrets_view(self.loop.platform, self.wanted)

    async def audit(self, start: int, limit: int) -> AuditView:
        return await self.pages.page(start, limit)

    async def list_keys(self) -> KeysView:
        return await self.keys()

    async def token(self, request: TokenRequest, peer: Asker) -> TokenView:
        return await give_token(request, actor_of(peer), self.loop.platform, self.tokens, self.store)

    async def register(self, request: RegistrationRequest, peer: Asker) -> RegistrationView:
        platform = running(self.wanted, None if self.reconciler.closing else self.loop.platform)
        spec = self.reconciler.desired().modules[module_named(platform, request["module"])].spec
        return await self.registrations.register(request, spec, actor_of(peer))

    async def heartbeat(self, instance: str, credential: str) -> None:
        self.registrations.heartbeat(instance, credential)

    async def deregister(self, instance: str, credential: str, peer: Asker) -> None:
        await self.registrations.deregister(instance, credential, actor_of(peer))

    # --- what somebody runs themselves -------------------------------------------------------------

    async def environment(self, module: str, instance: str, *, reveal: bool, peer: Asker) -> EnvironmentView:
        platform = running(self.wanted, self.loop.platform)
        if reveal and isinstance(peer, Role):
            raise Refused(
                "No secret leaves the cluster by way of control.",
                "Who may read Secrets there reads them with kubectl; each module's are labelled idi.dev/module.",
            )
        spec = self.reconciler.desired().modules[module_named(platform, module)].spec
        return await self.runs.environment(spec, instance, actor_of(peer), peer.pid, reveal=reveal)

    async def run_started(self, instance: str, pid: int, peer: Asker) -> None:
        self.runs.started(instance, pid, peer.pid)

    def run(self, instance: str) -> AsyncGenerator[RunView]:
        return self.runs.follow(instance)

    # --- events ------------------------------------------------------------------------------------

    async def publish(self, request: PublishRequest, peer: Asker) -> PublishedView:
        return await self.events.publish(request, self.loop.platform, actor_of(peer))

    async def tail(
        self, topics: list[str], since: int, attributes: Mapping[str, str]
    ) -> AsyncGenerator[EventView]:
        return await self.events.tail(topics, since, attributes, self.loop.platform)

    async def dead(self) -> AsyncGenerator[DeadView]:
        return await self.events.dead(self.loop.platform)

    async def replay(self, request: ReplayRequest, peer: Asker) -> ReplayView:
        return await self.events.replay(request, self.loop.platform, actor_of(peer))

    # --- what somebody wants -----------------------------------------------------------------------

    async def change(self, request: ChangeRequest, peer: Asker) -> AsyncIterator[Progress]:
        """Its progress, from now on; what is refused raises before that."""
        if request["action"] == "run":
            request = {**request, "by": actor_of(peer).name, "pid": peer.pid}
        return self.reconciler.change(request, actor_of(peer))


def actor_of(peer: Asker) -> Actor:
    if isinstance(peer, Role):
        return Actor("role", peer.name)
    return user(peer.uid, peer.pid)
