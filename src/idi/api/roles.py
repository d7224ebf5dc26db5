"""Which role somebody acts in: the highest that the cluster lets them have, unless they say another."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.cluster import Cluster

ROLES = ("operator", "deployer", "developer", "auditor", "viewer")
"""From the one that may most."""


def highest(cluster: Cluster) -> str:
    """Raises `Denied` where they have none."""
    from idi.api.cluster import Denied

    asked = [
        {
            "verb": "create",
            "resource": "serviceaccounts",
            "subresource": "token",
            "name": f"role.{role}",
            "namespace": cluster.namespace,
        }
        for role in ROLES
    ]
    for role, able in zip(ROLES, cluster.may(asked), strict=True):
        if able:
            return role
    raise Denied(
        f"You have no role in namespace {cluster.namespace} at the cluster of context {cluster.context}.",
        f"Ask who operates it to bind one: kubectl -n {cluster.namespace} create rolebinding NAME "
        f"--role=role.viewer --user={cluster.who()}",
    )
