"""Dialogues with one proxy, no socket: `say` is what the proxy sends, what comes back is what it is sent."""

from collections.abc import Mapping

from idi.parts.gateway.envoy.resources import Key, Kind, NodeResources, Resource, Store, version_of
from idi.parts.gateway.envoy.session import Request, Response, Session

C, E, S, L, R = Kind.CLUSTER, Kind.ASSIGNMENT, Kind.SECRET, Kind.LISTENER, Kind.ROUTES


def made(kind: Kind, name: str, content: str = "1", needs: tuple[Key, ...] = ()) -> Resource:
    return Resource(kind, name, version_of(f"{kind}{name}{content}".encode()), content.encode(), needs)


class Dialogue:
    """A proxy `n` that answers by hand."""

    def __init__(self, *resources: Resource) -> None:
        self.store = Store()
        self.seq = 1
        self.session = Session(self.store.view("n"))
        if resources:
            self.publish(*resources)

    def publish(self, *resources: Resource) -> None:
        """Exchange the whole view (secrets apart)."""
        own: dict[Kind, dict[str, Resource]] = {}
        for resource in resources:
            if resource.kind is S:
                self.store.put_secrets("n", [resource])
            else:
                own.setdefault(resource.kind, {})[resource.name] = resource
        self.store.replace({}, {"n": NodeResources(own=own)})
        self.seq += 1
        self.session.refresh(self.seq)

    def say(
        self,
        kind: Kind,
        *subscribe: str,
        drop: tuple[str, ...] = (),
        initial: Mapping[str, str] | None = None,
    ) -> None:
        self.session.receive(Request(kind, subscribe, drop, initial or {}))

    def sent(self) -> Response:
        """The one response that goes out now."""
        (response,) = self.session.responses()
        return response

    def silent(self) -> bool:
        return self.session.responses() == []

    def ack(self, response: Response) -> None:
        self.session.receive(Request(response.kind, nonce=response.nonce))

    def nack(self, response: Response, words: str = "no") -> None:
        self.session.receive(Request(response.kind, nonce=response.nonce, error=words))

    def settle(self) -> list[str]:
        """Acknowledge whatever comes until nothing does; what came, in order."""
        came = []
        while responses := self.session.responses():
            for response in responses:
                came += [f"+{response.kind.name} {resource.name}" for resource in response.resources]
                came += [f"-{response.kind.name} {name}" for name in response.removed]
                self.ack(response)
        return came


def names(response: Response) -> list[str]:
    return [resource.name for resource in response.resources]


def test_wildcard_gives_everything_and_names_give_only_those() -> None:
    d = Dialogue(made(C, "a"), made(C, "b"), made(E, "a"), made(E, "b"))
    d.say(C)
    clusters = d.sent()
    assert names(clusters) == ["a", "b"]
    d.ack(clusters)
    d.say(E, "a")
    assignments = d.sent()
    assert names(assignments) == ["a"]
    d.ack(assignments)
    assert d.silent()


def test_an_explicit_wildcard_is_one_too() -> None:
    d = Dialogue(made(L, "x"))
    d.say(L, "*")
    assert names(d.sent()) == ["x"]


def test_an_empty_first_subscription_means_nothing_for_named_types() -> None:
    d = Dialogue(made(R, "x"))
    d.say(R)
    assert d.silent()


def test_a_wildcard_with_nothing_to_give_is_answered_for_a_known_node_only() -> None:
    d = Dialogue()
    d.say(C)
    assert d.silent()
    d.publish(made(L, "x"))
    empty = d.sent()
    assert (empty.kind, empty.resources, empty.removed) == (C, (), ())
    d.ack(empty)
    assert d.silent()


def test_nothing_is_sent_twice() -> None:
    d = Dialogue(made(C, "a"))
    d.say(C)
    d.settle()
    d.publish(made(C, "a"))
    assert d.silent()
    assert d.session.oldest() is None


def test_only_what_changed_is_sent() -> None:
    d = Dialogue(made(C, "a"), made(C, "b"))
    d.say(C)
    d.settle()
    d.publish(made(C, "a"), made(C, "b", "2"))
    assert d.settle() == ["+CLUSTER b"]


def test_one_response_of_a_type_is_under_way_and_changes_meanwhile_are_joined() -> None:
    d = Dialogue(made(E, "a", "1"))
    d.say(E, "a")
    first = d.sent()
    for content in ("2", "3", "4"):
        d.publish(made(E, "a", content))
        assert d.silent()
    d.ack(first)
    (last,) = d.sent().resources
    assert last.entry == b"4"


def test_what_does_not_exist_stays_pending_and_comes_when_it_does() -> None:
    d = Dialogue(made(C, "a"))
    for kind in (R, S):
        d.say(kind, "a")
    assert d.silent()
    assert d.session.oldest() is None
    d.publish(made(C, "a"), made(R, "a"))
    assert d.settle() == ["+ROUTES a"]


def test_an_assignment_that_does_not_exist_is_said_not_to_and_comes_when_it_does() -> None:
    """Its cluster would warm until Envoy's own patience ends, and hold everything back."""
    d = Dialogue(made(C, "a"))
    d.say(E, "a")
    assert d.settle() == ["-ASSIGNMENT a"]
    assert d.session.oldest() is None
    d.publish(made(C, "a"), made(E, "a"))
    assert d.settle() == ["+ASSIGNMENT a"]


def test_removed_and_back() -> None:
    d = Dialogue(made(C, "a"))
    d.say(C)
    d.settle()
    d.publish(made(C, "b"))
    assert d.settle() == ["+CLUSTER b", "-CLUSTER a"]
    d.publish(made(C, "a"), made(C, "b"))
    assert d.settle() == ["+CLUSTER a"]


def test_a_named_resource_removed_and_back() -> None:
    d = Dialogue(made(E, "a"), made(C, "a"))
    d.say(E, "a")
    d.settle()
    d.publish(made(C, "a"))
    assert d.settle() == ["-ASSIGNMENT a"]
    d.publish(made(C, "a"), made(E, "a"))
    assert d.settle() == ["+ASSIGNMENT a"]


def test_removed_before_it_was_sent_is_never_mentioned() -> None:
    d = Dialogue(made(C, "a"))
    d.say(C)
    first = d.sent()
    d.publish(made(C, "a"), made(C, "b"))
    d.publish(made(C, "a"))
    d.ack(first)
    assert d.silent()
    assert d.session.oldest() is None


def test_order_is_make_before_break() -> None:
    d = Dialogue(made(C, "old"), made(E, "old"), made(L, "x"), made(R, "x", "old"))
    for kind, wanted in ((C, ()), (E, ("old",)), (L, ()), (R, ("x",))):
        d.say(kind, *wanted)
    d.settle()
    new = made(C, "new", needs=((E, "new"),))
    d.publish(new, made(E, "new"), made(L, "x"), made(L, "y"), made(R, "x", "new"))
    clusters = d.sent()
    assert (names(clusters), clusters.removed) == (["new"], ())
    # Envoy asks for the assignment before it acknowledges the cluster, which it does when that is warm.
    d.say(E, "new")
    assignments = d.sent()
    assert names(assignments) == ["new"]
    d.ack(assignments)
    assert d.silent()
    d.ack(clusters)
    assert d.settle() == ["+LISTENER y", "+ROUTES x", "-CLUSTER old", "-ASSIGNMENT old"]


def test_an_assignment_waits_for_nothing() -> None:
    """A death must get through whatever else is under way."""
    d = Dialogue(made(C, "a"), made(C, "b"), made(E, "a"), made(L, "x"))
    d.say(E, "a")
    d.settle()
    d.say(C)
    d.say(L)
    d.sent()
    d.publish(made(C, "a"), made(C, "b"), made(E, "a", "2"), made(L, "x"))
    assert names(d.sent()) == ["a"]


def test_an_updated_cluster_gets_its_assignment_anew_at_once() -> None:
    d = Dialogue(made(C, "a", "1", needs=((E, "a"),)), made(E, "a"))
    d.say(C)
    d.say(E, "a")
    d.settle()
    d.publish(made(C, "a", "2", needs=((E, "a"),)), made(E, "a"))
    cluster, assignment = d.session.responses()
    assert (cluster.kind, assignment.kind) == (C, E)
    d.ack(assignment)
    d.ack(cluster)
    assert d.silent()


def test_subscribing_again_sends_again() -> None:
    d = Dialogue(made(E, "a"))
    d.say(E, "a")
    d.settle()
    d.say(E, "a")
    assert d.settle() == ["+ASSIGNMENT a"]


def test_unsubscribed_is_silent() -> None:
    d = Dialogue(made(E, "a"), made(E, "b"))
    d.say(E, "a", "b")
    d.settle()
    d.say(E, drop=("a",))
    d.publish(made(E, "a", "2"), made(E, "b", "2"))
    assert d.settle() == ["+ASSIGNMENT b"]
    assert d.session.subscriptions() == {(E, "b")}


def test_a_name_dropped_under_a_wildcard_is_sent_once_more() -> None:
    d = Dialogue(made(C, "a"))
    d.say(C, "*", "a")
    d.settle()
    d.say(C, drop=("a",))
    assert d.settle() == ["+CLUSTER a"]


def test_the_wildcard_can_be_dropped() -> None:
    d = Dialogue(made(C, "a"), made(C, "b"))
    d.say(C, "*", "a")
    d.settle()
    d.say(C, drop=("*",))
    d.publish(made(C, "a", "2"), made(C, "b", "2"))
    assert d.settle() == ["+CLUSTER a"]


def test_refused_then_mended() -> None:
    d = Dialogue(made(L, "x", "good"))
    d.say(L)
    d.settle()
    d.publish(made(L, "x", "bad"))
    d.nack(d.sent(), "port 0")
    assert d.silent()
    (refusal,) = d.session.refusals()
    assert (refusal.kind, refusal.name, refusal.message) == (L, "x", "port 0")
    assert d.session.oldest() is None
    d.publish(made(L, "x", "bad"))
    assert d.silent()
    d.publish(made(L, "x", "better"))
    assert names(d.sent()) == ["x"]
    assert d.session.refusals()
    d.session.receive(Request(L, nonce=str(d.seq)))
    assert not d.session.refusals()


def test_refused_then_back_to_what_it_was() -> None:
    d = Dialogue(made(L, "x", "good"))
    d.say(L)
    d.settle()
    d.publish(made(L, "x", "bad"))
    d.nack(d.sent())
    d.publish(made(L, "x", "good"))
    assert d.settle() == ["+LISTENER x"]
    assert d.session.refusals() == ()


def test_refused_mended_and_refused_again_while_the_mended_one_is_under_way() -> None:
    d = Dialogue(made(L, "x", "bad"))
    d.say(L)
    d.nack(d.sent(), "bad")
    d.publish(made(L, "x", "good"))
    good = d.sent()
    d.publish(made(L, "x", "bad"))
    d.ack(good)
    d.nack(d.sent(), "bad again")
    assert [refusal.message for refusal in d.session.refusals()] == ["bad again"]


def test_a_refused_crowd_is_sent_one_by_one() -> None:
    d = Dialogue(made(L, "a"), made(L, "bad"), made(L, "c"))
    d.say(L)
    d.nack(d.sent(), "one of them is bad")
    came = []
    while responses := d.session.responses():
        (response,) = responses
        came.append(names(response))
        if "bad" in names(response):
            d.nack(response, "this one")
        else:
            d.ack(response)
    assert came == [["a"], ["bad"], ["c"]]
    assert [(refusal.name, refusal.message) for refusal in d.session.refusals()] == [("bad", "this one")]
    assert not d.session.has_all_listeners()
    assert d.session.has_answered_all()


def test_a_refused_cluster_holds_nothing_back() -> None:
    d = Dialogue(made(C, "a", needs=((E, "a"),)), made(E, "a"), made(L, "x"))
    d.say(C)
    d.say(L)
    d.nack(d.sent())
    assert names(d.sent()) == ["x"]


def test_an_old_nonce_is_no_answer() -> None:
    d = Dialogue(made(C, "a"))
    d.say(C)
    response = d.sent()
    d.session.receive(Request(C, nonce="0"))
    d.session.receive(Request(C, nonce="0", error="no"))
    assert d.session.oldest() is not None
    d.ack(response)
    assert d.session.oldest() is None


def test_coming_back_with_everything_costs_the_assignments_alone() -> None:
    """A cluster that was warming when the stream broke still waits for one, and nothing said tells so."""
    a, e, x = made(C, "a", needs=((E, "a"),)), made(E, "a"), made(L, "x")
    d = Dialogue(a, e, x)
    d.say(C, "*", initial={"a": a.version})
    d.say(E, "a", initial={"a": e.version})
    d.say(L, "*", initial={"x": x.version})
    assert d.settle() == ["+ASSIGNMENT a"]
    assert d.session.resumed
    assert d.session.has_all_listeners()


def test_a_service_that_went_while_its_cluster_warms_leaves_nobody_waiting() -> None:
    d = Dialogue(made(C, "a", needs=((E, "a"),)), made(E, "a"), made(L, "x"))
    d.say(C)
    d.say(L)
    clusters = d.sent()
    d.publish(made(L, "x"))
    d.say(E, "a")
    none = d.sent()
    assert (none.kind, none.resources, none.removed) == (E, (), ("a",))
    d.ack(none)
    d.ack(clusters)
    assert d.settle() == ["+LISTENER x", "-CLUSTER a"]


def test_coming_back_with_something_old() -> None:
    d = Dialogue(made(C, "a", "2"), made(C, "b"))
    d.say(C, initial={"a": made(C, "a", "1").version, "gone": "7"})
    # What it still routes to is not known before it has shown its listeners and routes.
    assert d.settle() == ["+CLUSTER a", "+CLUSTER b"]
    d.say(L)
    assert d.settle() == ["-CLUSTER gone"]


def test_coming_back_with_a_cluster_that_changed_meanwhile() -> None:
    ends = made(E, "a")
    d = Dialogue(made(C, "a", "2", needs=((E, "a"),)), ends)
    d.say(C, initial={"a": made(C, "a", "1").version})
    d.ack(d.sent())
    d.say(E, "a", initial={"a": ends.version})
    assert d.settle() == ["+ASSIGNMENT a"]


def test_coming_back_while_nothing_is_known_takes_nothing_away() -> None:
    d = Dialogue()
    d.say(C, initial={"a": "7"})
    assert d.silent()


def test_oldest_is_the_change_that_is_still_owed() -> None:
    d = Dialogue(made(E, "a", "1"))
    d.say(E, "a")
    d.settle()
    d.publish(made(E, "a", "2"))
    first_change, under_way = d.seq, d.sent()
    d.publish(made(E, "a", "3"))
    assert d.session.oldest() == first_change
    d.ack(under_way)
    assert d.session.oldest() == d.seq
    d.ack(d.sent())
    assert d.session.oldest() is None


def test_what_does_not_exist_is_not_owed() -> None:
    """A proxy without its first certificate serves nothing; no barrier may wait for it."""
    d = Dialogue(made(C, "a", needs=((S, "identity"),)))
    d.say(C)
    d.settle()
    d.say(S, "identity")
    assert d.silent()
    assert d.session.oldest() is None
    d.store.put_secrets("n", [made(S, "identity")])
    d.session.touch(S, "identity", 9)
    assert d.session.oldest() == 9
    assert d.settle() == ["+SECRET identity"]


def test_all_listeners_means_with_all_that_they_need() -> None:
    x = made(L, "x", needs=((R, "x"), (S, "identity")))
    d = Dialogue(x, made(R, "x"), made(S, "identity"))
    d.say(L)
    d.settle()
    assert not d.session.has_all_listeners()
    d.say(R, "x")
    d.settle()
    assert not d.session.has_all_listeners()
    d.say(S, "identity")
    d.settle()
    assert d.session.has_all_listeners()


def test_a_node_without_listeners_is_complete_when_told_so() -> None:
    d = Dialogue(made(C, "a"))
    d.say(C)
    d.settle()
    assert not d.session.has_all_listeners()
    d.say(L)
    d.settle()
    assert d.session.has_all_listeners()
