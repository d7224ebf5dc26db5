"""Dialogues with one proxy: what it refuses, how it comes back, what it still owes."""

from idi.parts.gateway.envoy.session import Request
from tests.support.envoy_dialogue import C, Dialogue, E, L, R, S, made, names


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


def test_oldest_is_of_the_first_change_however_many_are_sent_at_once() -> None:
    d = Dialogue(made(E, "a", "1"), made(E, "b", "1"))
    d.say(E, "a", "b")
    d.settle()
    d.publish(made(E, "a", "2"), made(E, "b", "1"))
    first = d.seq
    d.publish(made(E, "a", "3"), made(E, "b", "1"))
    assert d.session.oldest() == first
    d.publish(made(E, "a", "3"), made(E, "b", "2"))
    both = d.sent()
    assert names(both) == ["a", "b"]
    assert d.session.oldest() == first
    d.ack(both)
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


def test_a_control_without_certificates_takes_none_away() -> None:
    """It started again while the vault is down: what the proxy holds is good, and nothing waits for another."""
    x, identity = made(L, "x", needs=((S, "identity"),)), made(S, "identity")
    d = Dialogue(x)
    d.say(S, "identity", initial={"identity": identity.version})
    d.say(L, initial={"x": x.version})
    assert d.silent()
    assert d.session.oldest() is None
    assert d.session.has_all_listeners()
    d.store.put_secrets("n", [made(S, "identity", "2")])
    d.session.touch(S, "identity", 9)
    assert d.settle() == ["+SECRET identity"]
