"""`idi up` and `idi down` of an environment on a cluster: its release from here, the rest by control there."""

from __future__ import annotations

from idi.api.client import Client, NotRunning
from idi.api.errors import IdiError
from idi.cli.failure import DONE, FAILED, INTERRUPTED, Failure
from idi.cli.invocation import Invocation
from idi.cli.remote import lead_there
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.pump import follow
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.words import took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from idi.api.cluster import Cluster
    from idi.declaration.types import Platform

CONTROL_S = 180.0
LOOK_S = 1.0


def prepare(invocation: Invocation, platform: Platform, signals: Signals) -> Client:
    """Namespace and release as declared, control there, and the way to it."""
    from idi.api.bridge import Way
    from idi.api.environments import install, target_of
    from idi.api.paths import paths_for

    screen = invocation.screen
    screen.err([(f"{platform.namespace}: ", "bold"), (f"on {target_of(platform).context}", "")])
    try:
        changed = install(platform)
    except IdiError as error:
        raise Failure(error.message, way_out=error.way_out, code=FAILED) from error
    if changed:
        screen.err("The platform's release is installed; waiting for control.")
    await_control(platform, signals)
    Way(target_of(platform).context, platform.namespace).write(paths_for(invocation.file, invocation.env))
    client = invocation.client()
    try:
        client.status()
    except NotRunning:
        lead_there(invocation)
    return client


def await_control(platform: Platform, signals: Signals) -> None:
    """Until control's pod is ready; what keeps it from that is said while one waits."""
    import time

    from idi.api.cluster import trouble_of
    from idi.api.environments import cluster_of

    cluster = cluster_of(platform)
    deadline = time.monotonic() + CONTROL_S
    why = "there is no pod of it"
    while time.monotonic() < deadline:
        pod = cluster.get("pod", "control-0")
        if control_is_there(cluster, pod):
            return
        if pod:
            why = trouble_of(pod, "control") or "it is starting"
        signals.wait([], LOOK_S)
        if signals.stops:
            raise Failure("Interrupted; what is installed goes on starting.", code=INTERRUPTED)
    raise Failure(
        f"Control is not ready after {CONTROL_S:.0f} s: {why}.",
        way_out=f"kubectl --context {cluster.context} -n {cluster.namespace} describe pod control-0",
    )


def control_is_there(cluster: Cluster, pod: dict[str, Any] | None) -> bool:
    """Who may only use the environment sees its pod and nothing of what makes it; nor has it just been changed then."""
    from idi.api.cluster import Denied, is_ready

    try:
        whole = cluster.get("statefulset.apps", "control")
    except Denied:
        return is_ready((pod or {}).get("status", {}))
    return whole is not None and settled(whole)


def settled(whole: dict[str, Any]) -> bool:
    """Whether its pod is ready, and of the revision that was asked for last."""
    status = whole.get("status", {})
    return bool(
        status.get("observedGeneration") == whole["metadata"].get("generation")
        and status.get("updateRevision") == status.get("currentRevision")
        and status.get("readyReplicas") == 1
    )


def down(invocation: Invocation, platform: Platform, signals: Signals) -> int:
    """Modules first, by control; then the release. Volumes stay, and with them the journal."""
    from idi.api.bridge import address
    from idi.api.environments import uninstall
    from idi.api.paths import paths_for
    from idi.api.roles import ROLES

    follower = Follower(invocation.screen, None, reasons=False)
    client = invocation.client()
    try:
        client.status()
    except NotRunning:
        lead_there(invocation)
    with client.change({"action": "down"}) as stream:
        if not follow(stream, follower, signals):
            follower.say([("The stopping goes on by itself; idi status shows it.", "")])
            return INTERRUPTED
    if failure := follower.failure("Stopping"):
        raise failure
    try:
        uninstall(platform)
    except IdiError as error:
        raise Failure(
            f"The modules are stopped; what else is installed in {platform.namespace} stays: {error.message}",
            way_out=error.way_out,
            code=FAILED,
        ) from error
    paths = paths_for(invocation.file, invocation.env)
    address(paths).unlink(missing_ok=True)
    for role in ("", *ROLES):  # what leads there ends when it sees that
        paths_for(invocation.file, invocation.env, role).socket.unlink(missing_ok=True)
    if not invocation.screen.as_json:
        stay = f"; the namespace {platform.namespace} and its volumes stay."
        follower.say([("Stopped", "green"), (f" in {took(follower.seconds)}{stay}", "")])
    return DONE
