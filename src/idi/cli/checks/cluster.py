"""What an environment on a cluster needs: two programs here, and the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from idi.api.finding import Finding
from idi.cli.checks.machine import clock, python, system
from idi.cli.checks.platform import declaration
from idi.cli.invocation import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.declaration.types import Platform

Group = tuple[str, tuple[Callable[[Invocation], Iterator[Finding]], ...]]


def on_cluster(invocation: Invocation) -> Platform | None:
    """The platform, where the environment is on a cluster and its declaration can be read."""
    from idi.cli.declared import declared
    from idi.declaration.types import KubernetesTarget

    platform = declared(invocation)
    return platform if platform and isinstance(platform.target, KubernetesTarget) else None


def groups(platform: Platform) -> tuple[Group, ...]:
    """Instead of a laptop's."""

    def programs(_: Invocation) -> Iterator[Finding]:
        from idi.api.preflight import tools

        yield from tools()

    def cluster(invocation: Invocation) -> Iterator[Finding]:
        from idi.api.preflight import preflight

        yield from preflight(platform, lambda text: invocation.screen.err([(text, "dim")]))

    return (
        ("This machine", (python, system, clock, programs)),
        ("This platform", (declaration,)),
        (f"The cluster, for namespace {platform.namespace}", (cluster,)),
    )
