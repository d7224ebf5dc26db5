"""What follows from what the agent knows."""

from __future__ import annotations

import pytest

from idi.agent.state import State

pytestmark = pytest.mark.requirement("K1")


def serving() -> State:
    state = State(module=True)
    state.envoy(live=True)
    state.module(ready=True)
    state.answered(state.round, ready=True, in_rotation=True)
    return state


def test_everything_is_needed() -> None:
    state = State(module=True)
    assert state.report() == {"ready": False, "reason": "waiting for its module", "envoy": "down"}
    state.module(ready=True)
    assert state.report() == {"ready": True, "reason": "", "envoy": "down"}
    assert state.waiting_for == "Envoy has not been started"
    state.envoy(live=True)
    assert state.waiting_for == "waiting for control to let calls in"
    state.answered(state.round, ready=True, in_rotation=False)
    assert state.waiting_for
    state.answered(state.round, ready=True, in_rotation=True)
    assert state.waiting_for == ""
    state.stopping = True
    assert state.waiting_for == "it is stopping"


def test_in_rotation_holds_until_the_module_becomes_unready() -> None:
    state = serving()
    state.answered(state.round, ready=True, in_rotation=False)
    assert state.waiting_for == ""
    state.envoy(live=False, reason="Envoy was killed")
    assert state.waiting_for == "Envoy was killed"
    state.envoy(live=True)
    assert state.waiting_for == ""
    state.module(ready=False, reason="/ready answered 503")
    assert state.waiting_for == "/ready answered 503"
    state.module(ready=True)
    assert state.waiting_for == "waiting for control to let calls in"


@pytest.mark.parametrize("ready", [True, False])
def test_an_answer_to_a_report_of_before_does_not_count(ready: bool) -> None:
    state = serving()
    before = state.round
    state.module(ready=False)
    if ready:
        state.module(ready=True)
    state.answered(before, ready=True, in_rotation=True)
    assert not state.in_rotation
    state.answered(state.round, ready=False, in_rotation=True)
    assert not state.in_rotation


def test_a_gateway_is_its_envoy() -> None:
    state = State(module=False)
    assert state.report() == {"ready": False, "reason": "Envoy has not been started", "envoy": "down"}
    state.envoy(live=True)
    assert state.report() == {"ready": True, "reason": "", "envoy": "live"}
    state.answered(state.round, ready=True, in_rotation=True)
    assert state.waiting_for == ""
    state.envoy(live=False, reason="Envoy was killed")
    state.envoy(live=True)
    assert state.waiting_for == "waiting for control to let calls in"


def test_what_is_urgent() -> None:
    heard: list[bool] = []
    state = State(module=True)
    state.changed = heard.append
    state.module(ready=False, reason="1st try")
    state.module(ready=False, reason="1st try")
    state.module(ready=True)
    state.module(ready=True)
    state.envoy(live=False, reason="not there yet")
    state.envoy(live=True)
    state.module(ready=False, reason="gone")
    assert heard == [False, True, True, True]
