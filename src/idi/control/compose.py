"""Which vendor does what on a laptop: this file, its twin for a cluster (`compose_cluster`) and the parts' keepers
beside them are the only ones that name them. What stands on the parts is put together in `assembly`.

Everything is an async context manager and leaves in reverse order. What runs outside this process
(OpenBao, the gateway, modules and their sidecars) is adopted or started through the target and survives
control's end; only a plan's steps stop it.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

from idi.control.ahead import NAME as OPENBAO
from idi.control.ahead import Ahead, openbao_places
from idi.control.assembly import Keeper, Parts, assemble, embedded_tokens, keys_of
from idi.control.bus.broker import Broker, BrokerHere
from idi.control.bus.care import BusCare
from idi.control.clocks import notice_jumps
from idi.control.desk import Desk
from idi.control.door import Door
from idi.control.figures import Figures
from idi.control.loop import Edge, Loop
from idi.control.retiring import Retiring
from idi.control.settings import Settings
from idi.control.trust.authority import Authority
from idi.control.trust.credentials import Credentials
from idi.control.trust.identities import Identities
from idi.control.trust.logins import version_of
from idi.control.trust.secrets import Secrets
from idi.declaration.types import Platform
from idi.parts.bus.nats.binary import NATS
from idi.parts.clients.machine import this_machine
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.errors import Bug
from idi.parts.gateway.envoy import admin
from idi.parts.gateway.envoy.plane import EnvoyPlane
from idi.parts.gateway.envoy.start import ProxyStart, admin_socket, gateway_start, sidecar_start
from idi.parts.secrets.interface import SecretStore
from idi.parts.store.files import free_bytes
from idi.parts.store.interface import Store
from idi.parts.targets.interface import SidecarSpec
from idi.parts.targets.local.target import LocalTarget
from idi.plan.bus import BUS
from idi.traffic.types import GATEWAY
from idi.world.events import PartChanged
from idi.world.types import Instance, InstanceId

LAPTOP_WALL = "All modules run as your user: on a laptop the wall between them is convenience, not defence."


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
        tokens = embedded_tokens(settings, lambda _jwks: loop.republish())
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
        places = openbao_places(settings)
        authority = Authority(places, paths.logs / "openbao.log", target, loop, identities, tasks, ahead)
        await stack.enter_async_context(tokens)
        await stack.enter_async_context(plane)
        await stack.enter_async_context(target)

        # What works on the parts above ends before them.
        changes = await stack.enter_async_context(OwnedTasks())

        keepers: dict[str, Keeper] = {OPENBAO: authority, GATEWAY: door}

        left_over: list[str] = []

        def take_up() -> None:
            while left_over:
                changes.create_task(keepers[left_over.pop()].take_up())

        made = assemble(
            Parts(
                settings=settings,
                store=store,
                loop=loop,
                plane=plane,
                target=target,
                identities=identities,
                retiring=retiring,
                authority=authority,
                tokens=tokens,
                broker=broker,
                bus_care=bus_care,
                secrets=secrets,
                credentials=credentials,
                keepers=keepers,
                changes=changes,
                figures=Figures(lambda one: admin.figures(admin_socket(paths.runtime, one.id))),
                places=places_of,
                check=door.check_port,
                taken_up=take_up,
                warnings=(LAPTOP_WALL,),
            )
        )
        desk = made.desk
        await desk.reconciler.recall()
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
        changes.create_task(made.registrations.keep())
        changes.create_task(bus_care.keep())
        changes.create_task(made.runs.keep(changes))
        changes.create_task(notice_jumps(this_machine().suspended_s, authority.renew_first))
        yield desk


def current(loop: Loop) -> Platform:
    """The declaration that holds now; parts are made only after there is one."""
    if loop.platform is None:
        raise Bug("A part was asked for before anything was declared.")
    return loop.platform
