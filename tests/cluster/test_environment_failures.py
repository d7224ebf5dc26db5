"""Traffic goes on while nodes, parts and the way between them fail, as docs/reference/cluster-failures.md says.

Every act is real, is undone, and has a load beside it, whose clients write down every request: whatever fails outside
of the time and kind that is permitted is a fault, and so is an answer of somebody who was gone, an answer to somebody
else, or a POST that was worked on twice. What bounds there are is measured and printed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.cluster import faults
from tests.support.cluster.acts import DECLARED, LIMITS, WANTED, Push, Stage, followed, one_pool, worked_on
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.environment import Environment
from tests.support.history import Window, judge
from tests.support.scale import scale

pytestmark = [pytest.mark.requirement("K1", "T3"), pytest.mark.timeout(600)]

UNSAFE = frozenset({"POST"})
SILENT_S = 12.0
"""Until the kernel of a caller has given up all connections to a node that is silent: 3 to 5 s, and what a busy machine
makes of it."""
TRIES = 4
GONE_S = 3.0
"""Until kube-proxy everywhere has a gateway's end that nobody announced: some 0.2 s."""


@pytest.fixture(scope="module")
def stage(
    kube: Client,
    own: Cluster,
    images: Mapping[str, str],
    helm: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    made = Environment(tmp_path_factory.mktemp("acts"), kube, images, helm, f"acts-{uuid4().hex[:4]}")
    with one_pool(own), made.ending():
        made.declare(DECLARED.format(image=images["standin-python"]), more=LIMITS)
        made.done("up")
        stage = Stage(made, own)
        stage.back()
        yield stage


@pytest.fixture(autouse=True)
def whole(stage: Stage) -> None:
    """An act that failed, and was undone late, is not the next one's fault."""
    stage.back()


@pytest.mark.requirement("D1")
def test_instances_are_spread_over_nodes_that_are_in_no_zone(stage: Stage) -> None:
    for node in stage.nodes:
        assert {name.partition("-")[0] for name in stage.modules_on(node.name)} == {"jede", "cam"}, node.name
    for part in ("gateway", "xds"):
        assert len(set(stage.nodes_of(part).values())) == 2, part


@pytest.mark.requirement("D1", "G2")
def test_nodes_that_do_not_hear_each_other(stage: Stage) -> None:
    """Callers on each side go on with the instances that they reach, as long as it lasts."""
    between = stage.control_node()
    one, other = [node.name for node in stage.nodes if node.name != between]
    sides = {name: node for node in (one, other) for name in stage.modules_on(node)}
    # The clients are on neither side: no proxy stands between them and the gateways.
    with stage.load("load-partition", nodeName=between) as act:
        with faults.partition(stage.cluster, one, other):
            cut = time.time()
            time.sleep(scale(20.0, 60.0))
            healed = time.time()
        time.sleep(3.0)
    verdict = act.verdict([Window(cut, cut + SILENT_S, UNSAFE)])
    assert verdict.faults == []
    assert verdict.gap < SILENT_S
    later = [r for r in act.history if r.ok and cut + SILENT_S < r.sent and r.ended < healed]
    pairs = {tuple(sides.get(name, "") for name in r.by) for r in later}
    assert not {(one, other), (other, one)} & pairs, "nobody answers from the other side"
    assert {by for r in later for by in r.by} >= {*sides}, "everybody goes on with somebody"
    assert stage.back() < 30


@pytest.mark.requirement("D1")
def test_a_node_that_is_killed(stage: Stage) -> None:
    gateways = stage.addresses("gateway")
    away = [node for node in stage.away_from_control() if node in gateways]
    victim = max(away, key=lambda node: len(stage.modules_on(node)))
    lost = stage.modules_on(victim)
    assert lost
    safe = next(address for node, address in stage.addresses("gateway").items() if node != victim)
    with stage.load("load-kill", to=safe) as act, stage.load("load-kill-any", patience_s=5.0) as anywhere:
        killed = time.time()  # it is gone some tenths of a second later
        with faults.node_killed(stage.cluster, victim):
            unserved = stage.until_unserved(victim, 60.0) - killed
            out = stage.until_out(lost, 60.0) - killed
            time.sleep(max(0.0, killed + 20.0 - time.time()))
            restarted = time.time()
        since = stage.back()
    print(
        f"figure: node killed at {killed:.2f}, started again at {restarted:.2f}: its instances out of control's view "
        f"after {out:.1f} s, its gateway out of the Service after {unserved:.1f} s; back {since:.1f} s after it"
    )
    verdict = act.verdict([Window(killed, killed + SILENT_S, UNSAFE)], worked=False)
    slow = [r for r in act.history if r.ok and r.ended - r.sent > 0.5 and killed < r.ended < restarted]
    print(
        f"figure: node killed: {len(slow)} answers took longer than 0.5 s, the last was asked for at "
        f"{max((r.sent - killed for r in slow), default=0):.1f} s"
    )
    assert verdict.faults == []
    assert verdict.gap < SILENT_S
    assert out < 45
    assert unserved < 35, "Kubernetes gives it up after 40 s"
    ghosts = [r for r in act.history if r.ok and killed + 1 < r.sent < restarted and {*r.by} & {*lost}]
    assert not ghosts
    # Who comes by way of the Service may be sent to a gateway of that node until control has found it silent.
    client = judge(anywhere.history, [Window(killed, killed + 60.0)])
    print(f"figure: node killed, clients of the Service: {client}")
    assert client.faults == []


@pytest.mark.requirement("D1", "R1")
def test_the_node_of_control_is_killed(stage: Stage) -> None:
    """Nobody takes its instances out of the view then: callers find by themselves whom they do not reach."""
    victim = stage.control_node()
    lost = stage.modules_on(victim)
    beside = next(node.name for node in stage.nodes if node.name != victim)
    safe = next(address for node, address in stage.addresses("gateway").items() if node != victim)
    with stage.load("load-home", to=safe, nodeName=beside) as act:
        killed = time.time()
        with faults.node_killed(stage.cluster, victim):
            time.sleep(max(0.0, killed + scale(20.0, 60.0) - time.time()))
            restarted = time.time()
        since = stage.back()
    verdict = act.verdict([Window(killed, restarted + SILENT_S, UNSAFE)], worked=False)
    slow = sorted(r.ended - r.sent for r in act.history if r.ok and killed < r.ended < restarted)
    print(
        f"figure: the node of control killed for {restarted - killed:.0f} s: back {since:.1f} s after it; of "
        f"{len(slow)} answers meanwhile half took less than {slow[len(slow) // 2]:.2f} s, the slowest {slow[-1]:.2f} s"
    )
    assert verdict.faults == []
    assert verdict.gap < SILENT_S
    ghosts = [r for r in act.history if r.ok and killed + 1 < r.sent < restarted and {*r.by} & {*lost}]
    assert not ghosts


@pytest.mark.requirement("G1")
def test_a_gateway_that_is_killed(stage: Stage) -> None:
    clients = 8
    with stage.load("load-gateway", workers=clients) as act:
        victim = next(iter(stage.nodes_of("gateway")))
        killed = time.time()
        stage.environment.kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        time.sleep(GONE_S)
        stage.back()
    verdict = act.verdict([Window(killed, killed + GONE_S)])
    assert verdict.faults == []
    # The one that it was waiting for, and at most one that meets a closed port before the Service has heard.
    assert verdict.failed <= 2 * clients
    assert verdict.gap < SILENT_S


@pytest.mark.requirement("D1")
def test_a_replica_of_the_plane_that_is_killed_while_endpoints_change(stage: Stage) -> None:
    environment = stage.environment
    with stage.load("load-xds") as act:
        for kill in (stage.delete_at_once, stage.kill_process):
            changing = threading.Thread(target=environment.done, args=("scale", "cam=4"))
            changing.start()
            time.sleep(0.5)
            kill("xds")
            changing.join()
            environment.done("scale", "cam=3")
            stage.back()
    assert act.verdict(worked=False).faults == []
    assert act.verdict().failed == 0


@pytest.mark.requirement("K1", "R1")
def test_the_api_server_away_and_back(stage: Stage) -> None:
    """Control takes nobody for dead because it hears nothing, and changes are possible again."""
    before = stage.instances()
    with stage.load("load-api") as act:
        with faults.without_api_server(stage.cluster):
            time.sleep(scale(10.0, 60.0))
        stage.back()
        after = stage.instances()
        same = [name for name, was in before.items() if after.get(name) == was]
        print(
            f"figure: API server away: {len(same)} of {len(before)} instances have the state that they had since then"
        )
        # One that was slow for a moment on a busy machine may have been judged anew; all of them were not.
        assert after.keys() == before.keys()
        assert 2 * len(same) > len(before)
        assert act.environment.idi("plan").out.count("No changes") == 1
        stage.environment.done("scale", "cam=4")
        stage.environment.done("scale", "cam=3")
        stage.environment.done("restart", "jede")
        stage.back()
    assert act.verdict(worked=False).faults == []


@pytest.mark.requirement("K1", "D1")
def test_a_node_that_is_drained(stage: Stage, tmp_path: Path) -> None:
    """Budgets let one of each go at a time, and nobody is asked any more who is to go."""
    victim = stage.fullest()
    leaving = stage.modules_on(victim)
    assert leaving
    with followed(stage.environment, leaving, tmp_path) as printed, stage.load("load-drain") as act:
        began = time.time()
        try:
            stage.cluster.client.kubectl(
                *(
                    "drain",
                    victim,
                    "--ignore-daemonsets",
                    "--delete-emptydir-data",
                    "--force",
                    "--timeout=240s",
                ),
                timeout_s=260,
            )
            drained = time.time()
            time.sleep(2.0)
        finally:
            stage.cluster.client.kubectl("uncordon", victim)
        stage.back()
    print(f"figure: a node drained in {drained - began:.1f} s")
    verdict = act.verdict(gone=dict.fromkeys(leaving, drained))
    assert verdict.faults == []
    twice = judge(act.history, worked=[*act.beside, *worked_on(printed())])
    assert twice.faults == []
    stage.spread()


ITEMS = 9
"""What is said of a push of two modules before its end: that it began, and of two steps of each when they begin and
end."""


@pytest.mark.requirement("R1", "S5")
def test_control_killed_at_every_step_of_a_push(stage: Stage, seeded: random.Random) -> None:
    """It ends in what was asked for, and nothing is done twice but the step that was under way."""
    points = seeded.sample(range(ITEMS), scale(2, ITEMS))
    with stage.load("load-control") as act:
        for seen in points:
            cut_off(stage, partial(Push.until_said, items=seen + 1), f"after {seen + 1} items")
    assert act.verdict(worked=False).faults == []


@pytest.mark.requirement("R1", "C1")
def test_control_killed_while_helm_works(stage: Stage) -> None:
    """The release that Helm leaves locked is put right at once by the control that is started next."""
    with stage.load("load-helm") as act:
        for _ in range(TRIES):
            if locked := cut_off(stage, Push.until_pending, "while Helm works"):
                break
    assert act.verdict(worked=False).faults == []
    assert locked, f"Helm was done before control was killed, {TRIES} times"


def cut_off(stage: Stage, until: Callable[[Push], None], said: str) -> list[str]:
    """Push two modules, kill control at that moment, and wait until all is as it was asked for; the releases that were
    locked when control was dead. Each has made one revision then, or the one that was cut off, the way back and the
    step once more; and since the one that kubelet starts again at once may be killed in turn with its pod, two of each
    that were cut off."""
    before, releases = stage.revisions(), stage.releases()
    with Push(stage) as push:
        until(push)
        stage.kill_process("control")
        killed = time.monotonic()
    locked = [name for name, those in stage.releases().items() if those[-1][1].startswith("pending")]
    # Its next one is in another pod, at another address.
    stage.delete_at_once("control")
    stage.environment.until(lambda: stage.pushed_from(before), 240, f"the push to end ({said})")
    took = time.monotonic() - killed
    stage.back()
    # The gateway's pods have to come to the new control first.
    stage.environment.until(lambda: "No changes" in stage.environment.done("plan").out, 30, "no changes")
    after = stage.releases()
    made = {name: [n for n, _ in after[name] if n > releases[name][-1][0]] for name in WANTED}
    print(
        f"figure: control killed {said}: as asked for after {took:.1f} s; locked {locked}; revisions made {made}"
    )
    for module, those in after.items():
        assert [status for _, status in those].count("deployed") == 1, module
        assert those[-1][1] == "deployed", module
        assert 1 <= len(made[module]) <= 5, module
    return locked
