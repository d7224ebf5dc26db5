"""What is put together in the same way wherever control runs: tokens, and the desk on top of everything.

`compose` and `compose_cluster` make the parts, which differ; what stands on them does not know where it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from idi.api.types import ChangeRequest, KeysView
from idi.control.ahead import NAME as OPENBAO
from idi.control.audit_pages import AuditPages
from idi.control.bus.broker import Broker
from idi.control.bus.care import BusCare
from idi.control.bus.events import Events
from idi.control.bus.topics import Topics
from idi.control.change.outlook import Outlook
from idi.control.change.patience import Patience
from idi.control.change.reconciler import Reconciler
from idi.control.change.runs import Runs
from idi.control.desk import Desk, Printed
from idi.control.figures import Figures
from idi.control.loop import Loop
from idi.control.registrations import Registrations
from idi.control.retiring import Retiring
from idi.control.settings import Settings
from idi.control.trust.authority import Authority
from idi.control.trust.credentials import KEY_FILE, Credentials
from idi.control.trust.identities import Identities
from idi.control.trust.keys import keys_view
from idi.control.trust.logins import Logins
from idi.control.trust.rotation import Rotation
from idi.control.trust.secrets import Secrets
from idi.declaration.types import EmbeddedIssuer, ExternalIssuer, Platform
from idi.parts.discovery.registry import Registry
from idi.parts.gateway.interface import DataPlane
from idi.parts.store.interface import Actor, Store
from idi.parts.targets.interface import Attaching, Lending, Surveyed, Target
from idi.parts.tokens.embedded.service import ROTATE_EVERY_S, EmbeddedTokens
from idi.parts.tokens.external import discover
from idi.plan.bus import BUS, LOGIN_PATH
from idi.traffic.types import EmbeddedKeys, TlsServer
from idi.world.types import InstanceId


class Keeper(Protocol):
    """Who keeps one of IDI's own processes."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def take_up(self) -> None: ...


class Whole(Target, Attaching, Lending, Surveyed, Protocol):
    """A target with everything that a desk may ask of one; what it cannot do it refuses."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a desk stands on. `warnings` are those of this place alone; `taken_up` is called with each declaration that
    becomes current."""

    settings: Settings
    store: Store
    loop: Loop
    plane: DataPlane
    target: Whole
    identities: Identities
    retiring: Retiring
    authority: Authority
    tokens: EmbeddedTokens
    broker: Broker
    bus_care: BusCare
    secrets: Secrets
    credentials: Credentials
    keepers: Mapping[str, Keeper]
    changes: asyncio.TaskGroup
    figures: Figures
    places: Callable[[Platform], Mapping[str, str]]
    check: Callable[[], None] = lambda: None
    taken_up: Callable[[], None] = lambda: None
    warnings: Iterable[str] = ()
    printed: Printed | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    desk: Desk
    runs: Runs
    registrations: Registrations


def assemble(parts: Parts) -> Assembled:
    """The desk, and what is looked after beside it."""
    settings, loop, tokens, authority = parts.settings, parts.loop, parts.tokens, parts.authority

    async def start_part(name: str) -> None:
        await parts.keepers[name].start()

    async def stop_part(name: str) -> None:
        parts.retiring.hurry = True
        await parts.keepers[name].stop()

    def adopt_platform(platform: Platform) -> None:
        parts.retiring.hurry = False
        parts.identities.declared()
        parts.taken_up()
        authority.life(platform)
        parts.broker.declare(platform)
        issuer = platform.gateway.issuer
        if isinstance(issuer, EmbeddedIssuer):
            url = settings.gateway_url(platform)
            tokens.declare(platform.gateway.clients, issuer.token_life_s, url)

    def wants(instance: InstanceId) -> str:
        part = loop.world.parts.get(OPENBAO)
        if part is None or part.state == "ready" or not parts.identities.lacks(instance):
            return ""
        return f"it has no certificate, since OpenBao is {part.state}"

    async def keys() -> KeysView:
        platform = loop.platform
        ours = platform is None or isinstance(platform.gateway.issuer, EmbeddedIssuer)
        since = tokens.signing_since
        kept = reconciler.wanted.overlays.secrets.get(LOGIN_PATH)
        made = kept.since if kept else (settings.paths.keys / KEY_FILE).stat().st_mtime
        return await keys_view(
            authority.places,
            (since, since + ROTATE_EVERY_S) if ours else None,
            made if platform and BUS in platform.modules else None,
        )

    async def ask(request: ChangeRequest, actor: Actor) -> bool:
        return await reconciler.ask(request, actor)

    registry = Registry(parts.credentials.derive("registrations"), time.monotonic)
    registrations = Registrations(registry, parts.target, parts.store)
    runs = Runs(
        parts.target,
        loop,
        parts.store,
        wanted=lambda: reconciler.wanted,
        idle=lambda: reconciler.idle,
        ask=ask,
    )
    reconciler = Reconciler(
        settings=settings,
        store=parts.store,
        loop=loop,
        plane=parts.plane,
        executor=Patience(
            *(loop, parts.target, start_part, stop_part, registrations.dismiss, wants),
            lend=runs.lend,
            lost=lambda: authority.given_up,
            lacks=parts.identities.lacks,
            helps=authority.way_out,
        ),
        tasks=parts.changes,
        adopt_platform=adopt_platform,
        check=parts.check,
        resolve=resolve,
        topics=Topics(parts.broker.connect),
        secrets=parts.secrets,
        rotation=Rotation(parts.store, authority, tokens, parts.plane, Logins(parts.broker)),
        outlook=Outlook(parts.target, loop, parts.store, parts.changes),
        places=parts.places,
    )
    desk = Desk(
        reconciler=reconciler,
        warnings=lambda: [
            w
            for w in (
                *(authority.warning(), authority.notice, parts.bus_care.notice, tokens.warning),
                *parts.warnings,
            )
            if w
        ],
        figures=parts.figures,
        tokens=tokens,
        registrations=registrations,
        events=Events(parts.broker.connect, parts.store),
        keys=keys,
        runs=runs,
        pages=AuditPages(settings.paths.state / "journal"),
        printed=parts.printed,
    )
    return Assembled(desk, runs, registrations)


def embedded_tokens(settings: Settings, keys_changed: Callable[[str], None]) -> EmbeddedTokens:
    """The issuer as it is before anything is declared."""
    paths = settings.paths
    return EmbeddedTokens(
        paths.keys / "issuer",
        paths.runtime / "issuer",
        settings.gateway_url(None),
        f"idi/{settings.environment}",
        clients={},
        token_life_s=EmbeddedIssuer().token_life_s,
        keys_changed=keys_changed,
    )


async def resolve(platform: Platform) -> Platform:
    """The declaration with an external issuer's keys found and seen."""
    issuer = platform.gateway.issuer
    if not isinstance(issuer, ExternalIssuer):
        return platform
    return replace(platform, gateway=replace(platform.gateway, issuer=await discover(issuer)))


def keys_of(
    tokens: EmbeddedTokens, where: str | TlsServer
) -> Callable[[Platform], EmbeddedKeys | ExternalIssuer]:
    """Whose tokens the gateway takes: the declaration's external issuer, else ours, which is there."""

    def keys(platform: Platform) -> EmbeddedKeys | ExternalIssuer:
        issuer = platform.gateway.issuer
        if isinstance(issuer, ExternalIssuer):
            return issuer
        return EmbeddedKeys(tokens.url, tokens.audience, tokens.jwks(), where)

    return keys
