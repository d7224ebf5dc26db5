"""Which vendor does what: this file and the parts' keepers beside it are the only ones that name them.

Everything is an async context manager and leaves in reverse order. What runs outside this process
(OpenBao, the gateway, modules and their sidecars) is adopted or started through the target and survives
control's end; only a plan's steps stop it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Protocol

from idi.api.types import ChangeRequest, KeysView
from idi.control.ahead import NAME as OPENBAO
from idi.control.ahead import Ahead
from idi.control.authority import Authority
from idi.control.broker import Broker, BrokerHere
from idi.control.bus_care import BusCare
from idi.control.clocks import notice_jumps
from idi.control.credentials import KEY_FILE, Credentials
from idi.control.desk import Desk
from idi.control.door import Door
from idi.control.events import Events
from idi.control.figures import Figures
from idi.control.identities import Identities
from idi.control.keys import keys_view
from idi.control.logins import Logins, version_of
from idi.control.loop import Edge, Loop
from idi.control.patience import Patience
from idi.control.registrations import Registrations
from idi.control.retiring import Retiring
from idi.control.rotation import Rotation
from idi.control.runs import Runs
from idi.control.secrets import Secrets
from idi.control.settings import Settings
from idi.control.topics import Topics
from idi.declaration.types import EmbeddedIssuer, ExternalIssuer, Platform
from idi.parts.bus.nats.binary import NATS
from idi.parts.clients.machine import this_machine
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.discovery.registry import Registry
from idi.parts.errors import Bug
from idi.parts.gateway.envoy import admin
from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.parts.gateway.envoy.start import ProxyStart, admin_socket, gateway_start, sidecar_start
from idi.parts.secrets.interface import SecretStore
from idi.parts.secrets.openbao.server import Places
from idi.parts.store.files import free_bytes
from idi.parts.store.interface import Actor, Store
from idi.parts.targets.interface import SidecarSpec
from idi.parts.targets.local.target import LocalTarget
from idi.parts.tokens.embedded.service import ROTATE_EVERY_S, EmbeddedTokens
from idi.parts.tokens.external import discover
from idi.plan.bus import BUS, LOGIN_PATH
from idi.traffic.types import GATEWAY, EmbeddedKeys, TlsServer
from idi.world.events import PartChanged
from idi.world.types import Instance, InstanceId

LAPTOP_WALL = "All modules run as your user: on a laptop the wall between them is convenience, not defence."


class Keeper(Protocol):
    """Who keeps one of IDI's own processes."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def take_up(self) -> None: ...


@asynccontextmanager
async def compose(settings: Settings, store: Store, ahead: Ahead) -> AsyncIterator[Desk]:
    """A desk with everything behind it: living processes adopted, traffic published. What was started `ahead`
    stays out of the world until a change wants it."""
    paths = settings.paths
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(OwnedTasks())
        credentials = Credentials.load(paths.keys)
        xds_socket = paths.runtime / "xds"

        def on_ready(node: str, is_ready: bool) -> None:
            if node == GATEWAY:
                door.ready(is_ready)
            else:
                target.sidecar_ready(InstanceId(node), is_ready)

        plane = EnvoyPlane(xds_socket, credentials.verify, paths.state / "proxies", on_ready)
        tokens = EmbeddedTokens(
            paths.keys / "issuer",
            paths.runtime / "issuer",
            settings.gateway_url(None),
            f"idi/{settings.environment}",
            clients={},
            token_life_s=EmbeddedIssuer().token_life_s,
            keys_changed=lambda _jwks: loop.republish(),
        )
        edge = Edge(
            settings.gateway_address,
            settings.gateway_port,
            keys_of(tokens, str(tokens.socket)),
            str(paths.logs / "gateway-access.log"),
        )
        loop = Loop(plane, edge)
        identities = Identities(
            plane, lambda workload: loop.platform.identity(workload) if loop.platform else "", tasks
        )
        loop.listeners.append(identities.hear)

        async def drain(node: str, deadline_s: float) -> None:
            await admin.drain(admin_socket(paths.runtime, node), deadline_s)

        retiring = Retiring(loop, plane, drain)

        def make_sidecar(instance: Instance) -> SidecarSpec:
            start = sidecar_start(instance.id, credentials.issue(instance.id), paths.runtime, xds_socket)
            return SidecarSpec(start.argv, start.files, start.environment)

        def make_gateway() -> ProxyStart:
            limits = current(loop).gateway.limits
            return gateway_start(credentials.issue(GATEWAY), paths.runtime, xds_socket, limits.connections)

        here = BrokerHere(paths.runtime / "nats.conf", lambda: loop.world)
        broker = Broker(here, credentials.derive, lambda: version_of(desk.wanted), paths.keys)
        loop.listeners.append(broker.hear)
        bus_care = BusCare(broker.ask, lambda: free_bytes(paths.state / "data" / BUS), broker.restart)

        nats = cache(NATS.find)  # asked for at every status, and it does not move while control lives

        def places_of(platform: Platform) -> dict[str, str]:
            if BUS not in platform.modules:
                return {}
            return {"bus.program": str(nats()), "bus.config": str(here.file)}

        async def vault() -> SecretStore:
            return await authority.vault()

        secrets = Secrets(store, vault, broker.secret, lambda: desk.wanted.overlays.secrets)
        target = LocalTarget(
            platform_hash=paths.hash8,
            state_dir=paths.state,
            runtime_dir=paths.runtime,
            directory=Path(settings.directory),
            make_sidecar=make_sidecar,
            retire=retiring.retire,
            emit=loop.emit,
            supply=secrets.supply,
        )
        door = Door(
            settings,
            target,
            loop,
            identities,
            make_gateway,
            paths.logs / "gateway.log",
            lambda: authority.given_up,
        )
        places = Places(paths.state, paths.runtime, paths.keys)
        authority = Authority(places, paths.logs / "openbao.log", target, loop, identities, tasks, ahead)
        await stack.enter_async_context(tokens)
        await stack.enter_async_context(plane)
        await stack.enter_async_context(target)

        # What works on the parts above ends before them.
        changes = await stack.enter_async_context(OwnedTasks())

        keepers: dict[str, Keeper] = {OPENBAO: authority, GATEWAY: door}

        async def start_part(name: str) -> None:
            await keepers[name].start()

        async def stop_part(name: str) -> None:
            retiring.hurry = True
            await keepers[name].stop()

        left_over: list[str] = []

        def take_up() -> None:
            while left_over:
                changes.create_task(keepers[left_over.pop()].take_up())

        def adopt_platform(platform: Platform) -> None:
            retiring.hurry = False
            identities.declared()
            take_up()
            authority.life(platform)
            broker.declare(platform)
            issuer = platform.gateway.issuer
            if isinstance(issuer, EmbeddedIssuer):
                url = settings.gateway_url(platform)
                tokens.declare(platform.gateway.clients, issuer.token_life_s, url)

        def wants(instance: InstanceId) -> str:
            part = loop.world.parts.get(OPENBAO)
            if part is None or part.state == "ready" or not identities.lacks(instance):
                return ""
            return f"it has no certificate, since OpenBao is {part.state}"

        async def keys() -> KeysView:
            platform = loop.platform
            ours = platform is None or isinstance(platform.gateway.issuer, EmbeddedIssuer)
            since = tokens.signing_since
            kept = desk.wanted.overlays.secrets.get(LOGIN_PATH)
            made = kept.since if kept else (paths.keys / KEY_FILE).stat().st_mtime
            return await keys_view(
                places,
                (since, since + ROTATE_EVERY_S) if ours else None,
                made if platform and BUS in platform.modules else None,
            )

        registry = Registry(credentials.derive("registrations"), time.monotonic)
        registrations = Registrations(registry, target, store)

        async def ask_desk(request: ChangeRequest, actor: Actor) -> bool:
            return await desk.ask(request, actor)

        runs = Runs(
            target,
            loop,
            store,
            wanted=lambda: desk.wanted,
            idle=lambda: desk.idle,
            ask=ask_desk,
        )
        desk = Desk(
            settings=settings,
            store=store,
            loop=loop,
            plane=plane,
            executor=Patience(
                *(loop, target, start_part, stop_part, registrations.dismiss, wants),
                lend=runs.lend,
                lost=lambda: authority.given_up,
                lacks=identities.lacks,
                helps=authority.way_out,
            ),
            tasks=changes,
            warnings=lambda: [
                w
                for w in (authority.warning(), authority.notice, bus_care.notice, tokens.warning, LAPTOP_WALL)
                if w
            ],
            figures=Figures(lambda one: admin.figures(admin_socket(paths.runtime, one.id))),
            adopt_platform=adopt_platform,
            check=door.check_port,
            resolve=resolve,
            tokens=tokens,
            registrations=registrations,
            runs=runs,
            events=Events(broker.connect, store),
            topics=Topics(broker.connect),
            secrets=secrets,
            rotation=Rotation(store, authority, tokens, plane, Logins(broker)),
            keys=keys,
            places=places_of,
        )
        await desk.recall()
        await target.adopt()
        left_over += [
            name
            for name in target.recorded_parts()
            if name in keepers and not (name == OPENBAO and ahead.waiting)
        ]
        if loop.platform is not None:
            take_up()
        for name in left_over:  # the journal was set aside: somebody has to say what is wanted
            loop.emit(PartChanged(name, "unready", time.time(), reason="waits for a declaration: run idi up"))
        changes.create_task(registrations.keep())
        changes.create_task(bus_care.keep())
        changes.create_task(runs.keep(changes))
        changes.create_task(notice_jumps(this_machine().suspended_s, authority.renew_first))
        yield desk


def current(loop: Loop) -> Platform:
    """The declaration that holds now; parts are made only after there is one."""
    if loop.platform is None:
        raise Bug("A part was asked for before anything was declared.")
    return loop.platform


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
