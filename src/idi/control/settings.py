"""How control was started, as one value: by the command line it was given, or by the cluster that it is in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from idi.api.paths import Paths
from idi.control.cluster.place import Cluster, cluster_of
from idi.declaration.types import Platform
from idi.plan.pods import GATEWAY_PORT

STATE = Path("/var/lib/idi/control")
RUNTIME = Path("/run/idi/control")


@dataclass(frozen=True, slots=True)
class Settings:
    """`directory` is the declaration's folder: the working directory of every module. `ahead`: an `up` comes next.
    `cluster`: where control runs in one."""

    paths: Paths
    environment: str
    directory: str
    gateway_address: str = "127.0.0.1"
    gateway_port: int = 8080
    console_port: int = 8800
    ahead: bool = False
    cluster: Cluster | None = None

    def gateway_url(self, platform: Platform | None) -> str:
        """Where the gateway answers; https where the declaration gives it a certificate."""
        if self.cluster is not None:
            return self.cluster.gateway_url
        scheme = "https" if platform and platform.gateway.tls else "http"
        return f"{scheme}://{self.gateway_address}:{self.gateway_port}"


def settings_in(namespace: str, environment: str, state: Path = STATE, runtime: Path = RUNTIME) -> Settings:
    """Everything that lasts lies in the volume, sockets in memory."""
    paths = Paths(
        file=state / "platform.yaml",
        environment=environment,
        hash8=namespace,
        state=state / "state",
        runtime=runtime,
        keys=state / "keys" / namespace,
    )
    return Settings(
        paths=paths,
        environment=environment,
        directory=str(state),
        gateway_address="0.0.0.0",
        gateway_port=GATEWAY_PORT,
        cluster=cluster_of(namespace),
    )
