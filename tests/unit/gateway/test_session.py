"""Dialogues with one proxy, no socket: what it subscribes to, and in which order things come."""

from tests.support.envoy_dialogue import C, Dialogue, E, L, R, S, made, names


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
