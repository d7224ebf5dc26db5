"""Environments on a cluster: the way there is made by the first command that needs it, and kept for the next."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from idi.api.client import NotRunning
from idi.api.place import place
from idi.cli.failure import NOT_RUNNING, Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from idi.api.client import Client

    class Asked(Protocol):
        """Of an invocation what is needed to find its environment."""

        file: str
        env: str
        role: str
        remote: bool | None

        @property
        def where(self) -> str: ...

        def client(self, timeout: float = 0.0) -> Client: ...


WAIT_S = 40.0
POLL_S = 0.05


def is_remote(invocation: Asked) -> bool:
    """Whether the environment is on a cluster: it was reached from here before, or is declared to be there and is.
    Looks at one file, and further only where that is not there for another environment than dev."""
    if os.path.exists(os.path.join(place(invocation.file, invocation.env)[2], "cluster.json")):
        return True
    if invocation.remote is None:
        invocation.remote = invocation.env != "dev" and found_there(invocation)
    return invocation.remote


def found_there(invocation: Asked) -> bool:
    """Whether somebody has brought it up on the cluster that the declaration names; then the way there is known from
    now on. Raises `Failure` where the cluster cannot be asked."""
    from idi.cli.declared import declared

    platform = declared(invocation)
    if platform is None or platform.target.__class__.__name__ != "KubernetesTarget":
        return False
    from idi.api.bridge import Way
    from idi.api.cluster import Denied
    from idi.api.environments import cluster_of
    from idi.api.errors import IdiError
    from idi.api.paths import paths_for

    cluster = cluster_of(platform)
    try:
        if cluster.get("statefulset.apps", "control") is None:
            return False
    except Denied:
        pass  # who may only become a role may not look, and does not have to
    except IdiError as error:
        raise Failure(error.message, way_out=error.way_out, code=NOT_RUNNING) from error
    Way(cluster.context, cluster.namespace).write(paths_for(invocation.file, invocation.env))
    return True


def only_here(invocation: Asked, what: str, way_out: str) -> None:
    """Refuse what an environment on a cluster cannot do."""
    if is_remote(invocation):
        raise Failure(f"{invocation.where} is on a cluster. {what}", way_out=way_out)


def lead_there(invocation: Asked) -> None:
    """Start what leads to control in the cluster, and wait until it does. Raises `Failure` in its own words."""
    from idi.api.paths import make_private, paths_for

    paths = paths_for(invocation.file, invocation.env, invocation.role)
    for folder in (paths.state.parent, paths.state, paths.logs, paths.runtime):
        make_private(folder)
    paths.start_error.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-m", "idi.api.bridge", str(paths.file), invocation.env, paths.role]
    with open(paths.logs / "bridge.log", "ab", opener=_private) as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    client = invocation.client()
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            client.status()
            return
        except NotRunning:
            pass
        code = process.poll()
        if code is not None or time.monotonic() > deadline:
            if code is None:
                process.terminate()
            raise _why(paths.start_error)
        time.sleep(POLL_S)


def _why(error: os.PathLike[str]) -> Failure:
    try:
        with open(error, encoding="utf-8") as file:
            document = json.load(file)
        return Failure(document["message"], way_out=document["way_out"], code=NOT_RUNNING)
    except (OSError, ValueError, KeyError, TypeError):
        return Failure(
            "Control in the cluster does not answer.", way_out="kubectl get pods says more.", code=NOT_RUNNING
        )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
