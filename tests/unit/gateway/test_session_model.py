"""A model of Envoy in a dialogue with the session, in any order of events.

The model does what was seen of the real one: it subscribes to what its clusters and listeners name; it
holds the acknowledgement of clusters back until they are warm (an assignment, or "there is none", was
supplied after them); it refuses what is bad, keeps what it had and takes the good of the same response;
after a reconnect it says what it holds. Whatever happens, at the end it has exactly the view, and at no time
does a route lead to a cluster that is not in use.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from idi.parts.gateway.envoy.resources import Kind, NodeResources, Resource, Store, version_of
from idi.parts.gateway.envoy.session import Request, Response, Session
from tests.support.scale import scale

C, E, S, L, R = Kind.CLUSTER, Kind.ASSIGNMENT, Kind.SECRET, Kind.LISTENER, Kind.ROUTES
SERVICES = ("a", "b", "c")
BAD = b"bad"


def made(kind: Kind, name: str, content: str, needs: Iterable[tuple[Kind, str]] = ()) -> Resource:
    return Resource(
        kind, name, version_of(f"{kind.name} {name} {content}".encode()), content.encode(), tuple(needs)
    )


@dataclass
class Proxy:
    """What Envoy does. `has` are resources by kind and name; `warm` the clusters in use."""

    has: dict[Kind, dict[str, Resource]] = field(default_factory=lambda: {kind: {} for kind in Kind})
    subscribed: dict[Kind, set[str]] = field(default_factory=lambda: {kind: set() for kind in Kind})
    warm: set[str] = field(default_factory=set)
    warming: set[str] = field(default_factory=set)
    held_back: Response | None = None
    out: deque[Request] = field(default_factory=deque)

    def connect(self) -> None:
        """Streams begin anew; what is held is said, in the order of Envoy's types."""
        self.out.clear()
        self.held_back = None
        self.out.append(Request(C, initial=self._versions(C)))
        for kind in (E, S):
            if self.subscribed[kind]:
                names = tuple(sorted(self.subscribed[kind]))
                held = {name: version for name, version in self._versions(kind).items() if name in names}
                self.out.append(Request(kind, names, initial=held))
        self.out.append(Request(L, initial=self._versions(L)))
        if self.subscribed[R]:
            self.out.append(Request(R, tuple(sorted(self.subscribed[R])), initial=self._versions(R)))

    def _versions(self, kind: Kind) -> dict[str, str]:
        return {name: resource.version for name, resource in self.has[kind].items()}

    def take(self, response: Response) -> None:
        bad = [resource for resource in response.resources if resource.entry == BAD]
        for resource in response.resources:
            if resource.entry != BAD:
                self.has[response.kind][resource.name] = resource
                if response.kind is C:
                    self.warming.add(resource.name)
                elif response.kind is E:
                    self._supplied(resource.name)
        for name in response.removed:
            self.has[response.kind].pop(name, None)
            if response.kind is C:
                self.warm.discard(name)
                self.warming.discard(name)
            elif response.kind is E:
                self._supplied(name)
        self._follow()
        if bad:
            self.out.append(Request(response.kind, nonce=response.nonce, error="bad"))
        elif response.kind is C and self.warming:
            self.held_back = response
        else:
            self.out.append(Request(response.kind, nonce=response.nonce))

    def _supplied(self, name: str) -> None:
        if name in self.warming:
            self.warming.discard(name)
            self.warm.add(name)
        if not self.warming and self.held_back is not None:
            self.out.append(Request(C, nonce=self.held_back.nonce))
            self.held_back = None

    def _follow(self) -> None:
        """Subscribe to what clusters and listeners name; drop what none names any more."""
        wanted: dict[Kind, set[str]] = {E: set(self.has[C]), R: set(self.has[L]), S: set()}
        for resource in (*self.has[C].values(), *self.has[L].values()):
            wanted[S] |= {name for kind, name in resource.needs if kind is S}
        for kind, names in wanted.items():
            added, dropped = names - self.subscribed[kind], self.subscribed[kind] - names
            if added or dropped:
                self.out.append(Request(kind, tuple(sorted(added)), tuple(sorted(dropped))))
                self.subscribed[kind] = names
                for name in dropped:
                    self.has[kind].pop(name, None)


class Conversation(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.store = Store()
        self.proxy = Proxy()
        self.seq = 1
        self.to_proxy: deque[Response] = deque()
        self.session = Session(self.store.view("n"))
        self.content = dict.fromkeys(SERVICES, 0)
        self.moved: dict[str, tuple[int, int]] = {}
        self.proxy.connect()

    # --- events ------------------------------------------------------------------------------------

    @rule(
        services=st.sets(st.sampled_from(SERVICES)),
        routes=st.sets(st.sampled_from(SERVICES)),
        change=st.integers(0, 3),
        bad=st.sampled_from(["", "", "", "listener", "cluster"]),
    )
    def publish(self, services: set[str], routes: set[str], change: int, bad: str) -> None:
        """A view that is whole in itself: a route leads only to a service that is in it."""
        clusters = {name: made(C, name, f"{change}", ((E, name), (S, "identity"))) for name in services}
        if bad == "cluster" and services:
            name = min(services)
            clusters[name] = made(C, name, "bad", ((E, name), (S, "identity")))
        ends = {name: made(E, name, f"{self.content[name]}") for name in services}
        led = sorted(routes & {name for name, cluster in clusters.items() if cluster.entry != BAD})
        doors = {"x": made(L, "x", "bad" if bad == "listener" else f"{change // 2}", ((R, "x"),))}
        roads = {"x": made(R, "x", ",".join(led) or "none", [(C, name) for name in led])}
        self.seq += 1
        self.store.replace({C: clusters, E: ends}, self._node(services, {L: doors, R: roads}))
        self.session.refresh(self.seq)

    def _node(self, services: set[str], own: dict[Kind, dict[str, Resource]]) -> dict[str, NodeResources]:
        names = frozenset(services)
        return {"n": NodeResources({C: names, E: names}, own)}

    @rule(name=st.sampled_from(SERVICES))
    def endpoints(self, name: str) -> None:
        self.content[name] += 1
        if name in self.store.shared(E) and self.store.put(made(E, name, f"{self.content[name]}")):
            self.seq += 1
            self.session.touch(E, name, self.seq)
            self.moved[name] = (self.seq, self.content[name])

    @rule(content=st.integers(0, 2))
    def certificate(self, content: int) -> None:
        self.seq += 1
        for name in self.store.put_secrets("n", [made(S, "identity", f"{content}")]):
            self.session.touch(S, name, self.seq)

    @rule(count=st.integers(1, 4))
    def proxy_reads(self, count: int) -> None:
        for _ in range(count):
            self.to_proxy.extend(self.session.responses())
            if self.to_proxy:
                self.proxy.take(self.to_proxy.popleft())

    @rule(count=st.integers(1, 4))
    def server_reads(self, count: int) -> None:
        for _ in range(count):
            if self.proxy.out:
                self.session.receive(self.proxy.out.popleft())

    @rule()
    def reconnect(self) -> None:
        """Whatever was on the way is lost."""
        self.to_proxy.clear()
        self.session = Session(self.store.view("n"))
        self.proxy.connect()

    @rule()
    def settle(self) -> None:
        self._settle()
        self._is_the_view()

    # --- what must hold ----------------------------------------------------------------------------

    @invariant()
    def no_route_leads_to_a_cluster_that_is_not_in_use(self) -> None:
        for roads in self.proxy.has[R].values():
            for _, cluster in roads.needs:
                assert cluster in self.proxy.warm, f"{cluster} is routed to and not in use"

    @invariant()
    def nothing_counts_as_acknowledged_that_is_not_in_use(self) -> None:
        """What a barrier rests on: past its number, a proxy has the endpoints of that change or newer ones."""
        session, oldest = self.session, self.session.oldest()
        if session.resumed and not session.has_answered_all():
            return
        for name, (seq, content) in self.moved.items():
            if (oldest is None or oldest > seq) and (E, name) in session.subscriptions():
                held = self.proxy.has[E].get(name)
                if held is not None and self.store.view("n").find(E, name) is not None:
                    assert int(held.entry) >= content, f"{name} counts as acknowledged and is old"

    def teardown(self) -> None:
        self._settle()
        self._is_the_view()

    def _settle(self) -> None:
        for _ in range(400):
            self.to_proxy.extend(self.session.responses())
            if self.to_proxy:
                self.proxy.take(self.to_proxy.popleft())
            elif self.proxy.out:
                self.session.receive(self.proxy.out.popleft())
            else:
                return
            self.no_route_leads_to_a_cluster_that_is_not_in_use()
        raise AssertionError("they never stop talking")

    def _is_the_view(self) -> None:
        if not self.store.nodes():
            return
        assert self.session.oldest() is None
        view = self.store.view("n")
        refused = {(refusal.kind, refusal.name) for refusal in self.session.refusals()}
        for kind in (C, L):
            wanted = {name: view.find(kind, name) for name in view.names(kind)}
            assert refused >= {(kind, n) for n, r in wanted.items() if r is not None and r.entry == BAD}
            good = {name: resource for name, resource in wanted.items() if (kind, name) not in refused}
            assert {n: r for n, r in self.proxy.has[kind].items() if (kind, n) not in refused} == good
            # Refused: the one before stays, if there was one.
            assert set(self.proxy.has[kind]) <= set(wanted)
        for kind in (E, R):
            for name in self.proxy.subscribed[kind]:
                assert self.proxy.has[kind].get(name) == view.find(kind, name)
        for name in self.proxy.subscribed[S]:
            assert self.proxy.has[S].get(name) == view.find(S, name)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(
    max_examples=scale(60, 2000), stateful_step_count=scale(20, 30), deadline=None
)
