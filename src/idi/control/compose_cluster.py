"""Control inside a cluster: which vendor does what there. The twin of `compose`, which does it for a laptop.

Modules are Helm releases and their pods' agents speak at a door of their own; the gateway's pods belong to the
platform's release; people come by port-forward to a port on loopback, with a token of a role. OpenBao runs in
control's own pod, where nobody else reaches it, kept as on a laptop. Everything above (desk, plan, journal, traffic)
is the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from idi.api.asker import Role
from idi.api.server import Server
from idi.control.ahead import NAME as OPENBAO
from idi.control.ahead import Ahead, openbao_places
from idi.control.assembly import Keeper, Parts, assemble, embedded_tokens, keys_of
from idi.control.bus.broker import Broker, watching
from idi.control.bus.care import BusCare
from idi.control.bus.pod import BrokerPod
from idi.control.cluster import place
from idi.control.cluster.door import PORT as DOOR_PORT
from idi.control.cluster.door import PodDoor, listening
from idi.control.cluster.figures import PodFigures
from idi.control.cluster.gateway_way import leading
from idi.control.cluster.gateways import Gateways
from idi.control.cluster.logs import PodLogs
from idi.control.cluster.place import Cluster
from idi.control.cluster.releases import ModuleReleases, at_work_on, keeps_data
from idi.control.desk import Desk
from idi.control.figures import Figures
from idi.control.loop import Edge, Loop
from idi.control.retiring import Retiring
from idi.control.settings import Settings
from idi.control.trust.authority import Authority
from idi.control.trust.caller import Caller
from idi.control.trust.credentials import Credentials
from idi.control.trust.identities import Identities
from idi.control.trust.logins import version_of
from idi.control.trust.own_tls import renewed, tls_of
from idi.control.trust.secrets import Secrets
from idi.declaration.types import EdgeLimits, ModuleName, Platform
from idi.parts.certificates.serving import ServingAuthority
from idi.parts.clients import token_review
from idi.parts.clients.helm import Helm
from idi.parts.clients.helm import Reach as helm_reach
from idi.parts.clients.helm import find as helm_program
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.clients.kubernetes_access import in_cluster
from idi.parts.clients.owned_tasks import OwnedTasks
from idi.parts.clients.token_review import TokenReviews
from idi.parts.errors import Bug
from idi.parts.gateway.envoy.listening import ServerCertificate, TlsPort
from idi.parts.gateway.envoy.render.cluster_bootstrap import ClusterXds
from idi.parts.gateway.envoy.replicas.plane import ReplicatedPlane
from idi.parts.gateway.envoy.start import cluster_files
from idi.parts.secrets.interface import SecretStore
from idi.parts.store.interface import Store
from idi.parts.targets.interface import SidecarSpec
from idi.parts.targets.kubernetes.output import STREAMS, Output
from idi.parts.targets.kubernetes.pods import AGENT_PORT, PART
from idi.parts.targets.kubernetes.target import KubernetesTarget as Pods
from idi.parts.targets.kubernetes.values import Around, around_of
from idi.parts.targets.local.output import Logs
from idi.parts.targets.local.target import LocalTarget
from idi.plan.bus import BUS, LOGIN_PATH
from idi.plan.pods import GATEWAY_PORT, PLACES
from idi.traffic.types import CONTROL, GATEWAY, TlsServer
from idi.world.types import Instance, InstanceId, RevisionSpec

log = logging.getLogger(__name__)

XDS = "xds"
"""The part of the platform that the replicas of the plane are."""
BARRIER_S = 5.0
ANSWERS_S = 1.0
KNOWN_S = 30.0


@dataclass(slots=True)
class PodWords:
    """What agents say, done: facts first, then the wait until every proxy has them."""

    target: Pods
    gateways: Gateways
    loop: Loop
    plane: ReplicatedPlane

    async def report(self, pod: str, *, ready: bool, reason: str) -> bool:
        if pod in self.gateways:
            return self.gateways.serves(pod)
        if not self.target.instances.report(InstanceId(pod), ready, reason):
            return False
        self.loop.flush()
        await self.plane.barrier(BARRIER_S)
        return True

    async def stopping(self, pod: str) -> None:
        if pod in self.gateways:
            await self.gateways.stopping(pod)
        else:
            await self.target.instances.stopping(InstanceId(pod))


@asynccontextmanager
async def compose(settings: Settings, store: Store, ahead: Ahead) -> AsyncIterator[Desk]:
    """A desk with everything behind it: pods that live are known, traffic is published."""
    paths, cluster = settings.paths, settings.cluster
    if cluster is None:
        raise Bug("Control was not told which cluster it is in.")
    async with AsyncExitStack() as stack:
        owned = OwnedTasks()
        tasks = await stack.enter_async_context(owned)
        api = await stack.enter_async_context(Kubernetes(in_cluster()))
        reading = await stack.enter_async_context(Kubernetes(in_cluster(), streams=STREAMS))
        reviews = TokenReviews(api, cluster.namespace)
        helm = Helm(helm_program(), helm_reach(), paths.runtime / "helm", keeps=keeps_data)
        serving = ServingAuthority(paths.keys / "serving")
        served = serving.issue(cluster.names)
        certificate = ServerCertificate(served.chain, served.key)
        await publish_bootstrap(api, cluster, serving.root)
        credentials = Credentials.load(paths.keys)

        def on_ready(node: str, is_ready: bool) -> None:
            if node in gateways:
                gateways.ready(node, is_ready)
            else:
                target.sidecar_ready(InstanceId(node), is_ready)

        async def replica(token: str) -> str | None:
            who = await reviews.who(token)
            if not isinstance(who, token_review.Workload) or who.name != XDS:
                return None
            # It gets everybody's certificates, and nobody tells of its end: so it is looked for.
            pod = await api.find(path("v1", "pods", cluster.namespace, who.pod))
            return who.pod if pod is not None and pod["metadata"]["uid"] == who.pod_uid else None

        plane = ReplicatedPlane(
            TlsPort("0.0.0.0", place.XDS_PORT, certificate),
            reviews.verify,
            replica,
            paths.state / "proxies",
            on_ready,
        )
        plane.set_certificate(served.chain, served.key)
        tokens = embedded_tokens(settings, lambda _jwks: loop.republish())
        issuer = TlsServer(f"control.{cluster.namespace}.svc", DOOR_PORT, f"{place.MOUNTED}/{place.ROOTS}")
        edge = Edge(
            settings.gateway_address,
            settings.gateway_port,
            keys_of(tokens, issuer),
            "/dev/stdout",
            nodes=(),
        )
        loop = Loop(plane, edge)
        identities = Identities(
            plane, lambda workload: loop.platform.identity(workload) if loop.platform else "", tasks
        )
        loop.listeners.append(identities.hear)
        caller = Caller()
        identities.keep(CONTROL, CONTROL, caller.take)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWERS_S))
        )

        async def answers(address: str) -> bool:
            try:
                host = f"[{address}]" if ":" in address else address
                async with session.get(f"http://{host}:{AGENT_PORT}/live") as answer:
                    return answer.status == 200
            except (aiohttp.ClientError, TimeoutError, OSError):
                return False

        def reached() -> bool:
            return any(plane.connected().values())

        gateways = Gateways(
            *(api, cluster.namespace, loop, identities, store, owned, answers, reached, reviews.ended)
        )

        async def no_drain(node: str, deadline_s: float) -> None:
            """A pod's agent drains its own proxy once the barrier is passed."""

        retiring = Retiring(loop, plane, no_drain)

        async def vault() -> SecretStore:
            return await authority.vault()

        pod = BrokerPod(
            api,
            cluster.namespace,
            lambda: loop.world,
            caller,
            lambda: loop.platform.identity(BUS) if loop.platform else "",
            watching(credentials.derive),
        )
        loop.listeners.append(pod.hear)
        broker = Broker(pod, credentials.derive, lambda: version_of(desk.wanted), paths.keys)
        bus_care = BusCare(broker.ask, None, broker.restart)

        async def supply(spec: RevisionSpec, asked: Collection[str]) -> dict[str, bytes]:
            if LOGIN_PATH in asked:
                await pod.taken()  # whoever starts with a login finds it good
            return await secrets.supply(spec, asked)

        secrets = Secrets(store, vault, broker.secret, lambda: desk.wanted.overlays.secrets)
        releases = ModuleReleases(helm, cluster.namespace, at_work_on(await store.unfinished()))
        target = Pods(
            api=api,
            namespace=cluster.namespace,
            releases=releases,
            around=lambda module, platform: declared_around(cluster, platform or loop.platform, module),
            emit=loop.emit,
            retire=retiring.retire,
            supply=supply,
            answers=answers,
            reached=reached,
            ended=reviews.ended,
        )
        own = LocalTarget(
            platform_hash=paths.hash8,
            state_dir=paths.state,
            runtime_dir=paths.runtime,
            directory=Path(settings.directory),
            make_sidecar=no_sidecar,
            retire=retiring.retire,
            emit=loop.emit,
        )
        places = openbao_places(settings)
        authority = Authority(places, paths.logs / "openbao.log", own, loop, identities, tasks, ahead)
        await stack.enter_async_context(tokens)
        await stack.enter_async_context(plane)
        await stack.enter_async_context(own)
        await stack.enter_async_context(target)
        changes = await stack.enter_async_context(OwnedTasks())
        keepers: Mapping[str, Keeper] = {OPENBAO: authority, GATEWAY: gateways}

        desk = assemble(
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
                figures=Figures(PodFigures(session).read),
                places=lambda _: PLACES,
                printed=PodLogs(Output(reading, cluster.namespace, Logs(paths.logs))),
            )
        ).desk
        # Before anything is published: what is not known yet would be taken from the proxies.
        await own.adopt()
        await releases.recover()
        await target.adopt()
        changes.create_task(gateways.follow())
        async with asyncio.timeout(KNOWN_S):
            await gateways.known.wait()
        await desk.reconciler.recall()
        if loop.platform is not None and desk.wanted.up:
            for keeper in keepers.values():
                changes.create_task(keeper.take_up())
        changes.create_task(pod.keep())
        changes.create_task(bus_care.keep())
        tls = tls_of(served)
        door = PodDoor(PodWords(target, gateways, loop, plane), reviews.verify).application()
        tokens.serve_in(door)
        await stack.enter_async_context(listening(door, "0.0.0.0", DOOR_PORT, tls))
        changes.create_task(renewed(serving, cluster.names, certificate, plane, tls))

        async def prove(token: str) -> Role | None:
            who = await reviews.who(token)
            return Role(who.name) if isinstance(who, token_review.Role) else None

        people = Server(desk).application(prove)
        await stack.enter_async_context(listening(people, "127.0.0.1", place.PEOPLE_PORT))
        await stack.enter_async_context(leading(f"gateway.{cluster.namespace}.svc", GATEWAY_PORT))
        yield desk


async def publish_bootstrap(api: Kubernetes, cluster: Cluster, root: bytes) -> None:
    """What every sidecar is started with: whom to ask, whom to trust in it, and nothing that is secret."""
    xds = ClusterXds(f"xds.{cluster.namespace}.svc", place.XDS_PORT, place.MOUNTED)
    files = {place.ROOTS: root, **cluster_files(xds, root, place.ADMIN, EdgeLimits().connections)}
    name = path("v1", "configmaps", cluster.namespace, place.PROXY)
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": place.PROXY, "namespace": cluster.namespace},
        "data": {file: content.decode() for file, content in files.items()},
    }
    first = await api.find(name) is None
    await api.apply(name, document, force=True)
    if first:
        # Those that came before it wait for kubelet's next try, longer each time; their successors need not. At once,
        # since nothing runs in them, and one that is on its way out would keep its successor off its node.
        waiting = f"{PART} in ({GATEWAY},{XDS})"
        for pod in (await api.listing(path("v1", "pods", cluster.namespace), labels=waiting)).items:
            if pod.get("status", {}).get("phase") != "Pending":
                continue
            await api.delete(path("v1", "pods", cluster.namespace, pod["metadata"]["name"]), grace_s=0)


def declared_around(cluster: Cluster, platform: Platform | None, module: ModuleName) -> Around | None:
    return None if platform is None else around_of(platform, module, cluster.namespace, cluster.sidecar_image)


def no_sidecar(_instance: Instance) -> SidecarSpec:
    raise Bug("Modules are not run beside control here.")
