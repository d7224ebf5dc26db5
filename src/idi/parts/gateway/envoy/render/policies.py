"""Who may call whom: role-based access by SPIFFE identity, refused unless allowed."""

from __future__ import annotations

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.type.matcher.v3 import string_pb2

FILTER = "envoy.filters.http.rbac"


def callers(allowed: tuple[str, ...]) -> rbac_pb2.RBAC:
    """Only these identities. With none, nobody: an ALLOW without a policy that matches refuses."""
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)
    if allowed:
        rules.policies["callers"].CopyFrom(
            rbac_pb2.Policy(
                permissions=[rbac_pb2.Permission(any=True)],
                principals=[_principal(identity) for identity in sorted(allowed)],
            )
        )
    return rules


def http_refuse_all() -> http_rbac.RBAC:
    """The filter itself; a route says who may."""
    return http_rbac.RBAC(rules=callers(()))


def http_callers(allowed: tuple[str, ...]) -> http_rbac.RBACPerRoute:
    return http_rbac.RBACPerRoute(rbac=http_rbac.RBAC(rules=callers(allowed)))


def _principal(identity: str) -> rbac_pb2.Principal:
    return rbac_pb2.Principal(
        authenticated=rbac_pb2.Principal.Authenticated(
            principal_name=string_pb2.StringMatcher(exact=identity)
        )
    )
