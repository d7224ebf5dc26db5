"""Who the client is, and what it may: tokens checked at the gateway, scopes per route.

A token is taken from the Authorization header alone (one in a URL ends in logs and histories), must come
from the declared issuer for the declared audience, and must expire. Whatever no route has opened needs one:
the rule covers every path, a public route takes itself out.

The token ends here. A module gets the subject and the scopes as headers that nobody outside can set, over a
connection that proves the gateway; it does not get the token, with which it could call as its client.

The gateway itself reads these headers, too: the limit by client, the scopes, the log. To have the claims as
metadata besides would cost a tenth of all that the gateway does for a request (they are copied three times),
so that is done only for an issuer that may write its scopes as a list, which no header can be searched for.
"""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from envoy.config.core.v3 import base_pb2, http_uri_pb2
from envoy.config.rbac.v3 import rbac_pb2
from envoy.config.route.v3 import route_components_pb2 as route
from envoy.extensions.filters.http.jwt_authn.v3 import config_pb2 as jwt
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac
from envoy.type.matcher.v3 import metadata_pb2, string_pb2, value_pb2

from idi.declaration.types import ExternalIssuer
from idi.parts.errors import Bug
from idi.parts.gateway.envoy.render.clusters import web_cluster
from idi.parts.gateway.envoy.render.proto import number, seconds
from idi.parts.gateway.envoy.resources import Resource
from idi.traffic.types import EmbeddedKeys

FILTER = "envoy.filters.http.jwt_authn"
PROVIDER = "issuer"
PAYLOAD = "token"
REFUSED = "refused"
KEYS_CLUSTER = "issuer.keys"

SUBJECT_HEADER = "x-idi-subject"
SCOPE_HEADER = "x-idi-scope"

CACHED_TOKENS = 10_000
CLOCK_SKEW_S = 30
OWN_SKEW_S = 1
"""Our own issuer reads the same clock; 0 would mean Envoy's default of a minute."""
KEYS_KEPT_S = 600.0


def authentication(issuer: EmbeddedKeys | ExternalIssuer) -> jwt.JwtAuthentication:
    """The claims go into headers that the listener has taken off the request before (`gateway.OURS`)."""
    provider = jwt.JwtProvider(
        issuer=issuer.issuer if isinstance(issuer, EmbeddedKeys) else issuer.url,
        audiences=[issuer.audience],
        require_expiration=True,
        clock_skew_seconds=OWN_SKEW_S if isinstance(issuer, EmbeddedKeys) else CLOCK_SKEW_S,
        from_headers=[jwt.JwtHeader(name="Authorization", value_prefix="Bearer ")],
        forward=False,
        failed_status_in_metadata=REFUSED,
        claim_to_headers=[
            jwt.JwtClaimToHeader(header_name=SUBJECT_HEADER, claim_name="sub"),
            jwt.JwtClaimToHeader(header_name=SCOPE_HEADER, claim_name="scope"),
        ],
        # A checked token costs no signature again until it expires or falls out.
        jwt_cache_config=jwt.JwtCacheConfig(jwt_cache_size=CACHED_TOKENS),
    )
    if isinstance(issuer, EmbeddedKeys):
        provider.local_jwks.inline_string = _canonical(issuer.jwks)
    else:
        provider.remote_jwks.CopyFrom(_remote(issuer))
        provider.payload_in_metadata = PAYLOAD
        provider.normalize_payload_in_metadata.space_delimited_claims.append("scope")
    everything = jwt.RequirementRule(
        match=route.RouteMatch(prefix="/"), requires=jwt.JwtRequirement(provider_name=PROVIDER)
    )
    return jwt.JwtAuthentication(providers={PROVIDER: provider}, rules=[everything])


def no_token() -> jwt.PerRouteConfig:
    return jwt.PerRouteConfig(disabled=True)


def keys_cluster(issuer: ExternalIssuer) -> Resource:
    url = urlsplit(_keys_url(issuer))
    secure = url.scheme == "https"
    return web_cluster(KEYS_CLUSTER, url.hostname or "", url.port or (443 if secure else 80), secure=secure)


def scopes_needed(scopes: tuple[str, ...], issuer: EmbeddedKeys | ExternalIssuer) -> http_rbac.RBACPerRoute:
    """All of them. None named: any valid token will do, and a request that has none does not come this far."""
    if not scopes:
        return everybody()
    holds = _in_header if isinstance(issuer, EmbeddedKeys) else _in_metadata
    rules = rbac_pb2.RBAC(action=rbac_pb2.RBAC.ALLOW)
    principals = [holds(scope) for scope in sorted(scopes)]
    rules.policies["scopes"].CopyFrom(
        rbac_pb2.Policy(
            permissions=[rbac_pb2.Permission(any=True)],
            principals=[rbac_pb2.Principal(and_ids=rbac_pb2.Principal.Set(ids=principals))],
        )
    )
    return http_rbac.RBACPerRoute(rbac=http_rbac.RBAC(rules=rules))


def everybody() -> http_rbac.RBACPerRoute:
    """No policy at all."""
    return http_rbac.RBACPerRoute()


def _in_header(scope: str) -> rbac_pb2.Principal:
    """Our own issuer writes a string with spaces: the scope is all of it, or its first, last or another word."""
    places = (
        string_pb2.StringMatcher(exact=scope),
        string_pb2.StringMatcher(prefix=f"{scope} "),
        string_pb2.StringMatcher(suffix=f" {scope}"),
        string_pb2.StringMatcher(contains=f" {scope} "),
    )
    found = [
        rbac_pb2.Principal(header=route.HeaderMatcher(name=SCOPE_HEADER, string_match=place))
        for place in places
    ]
    return rbac_pb2.Principal(or_ids=rbac_pb2.Principal.Set(ids=found))


def _in_metadata(scope: str) -> rbac_pb2.Principal:
    """The claim is a list by now, whether the issuer wrote one or a string with spaces."""
    one = value_pb2.ListMatcher(
        one_of=value_pb2.ValueMatcher(string_match=string_pb2.StringMatcher(exact=scope))
    )
    matcher = metadata_pb2.MetadataMatcher(
        filter=FILTER,
        path=[metadata_pb2.MetadataMatcher.PathSegment(key=key) for key in (PAYLOAD, "scope")],
        value=value_pb2.ValueMatcher(list_match=one),
    )
    return rbac_pb2.Principal(sourced_metadata=rbac_pb2.SourcedMetadata(metadata_matcher=matcher))


def _remote(issuer: ExternalIssuer) -> jwt.RemoteJwks:
    """Fetched in the background before they are needed; a key that a token names and that is not there yet
    (a rotation) is in the next fetch."""
    return jwt.RemoteJwks(
        http_uri=http_uri_pb2.HttpUri(uri=_keys_url(issuer), cluster=KEYS_CLUSTER, timeout=seconds(5)),
        cache_duration=seconds(KEYS_KEPT_S),
        async_fetch=jwt.JwksAsyncFetch(fast_listener=False, failed_refetch_duration=seconds(1)),
        retry_policy=base_pb2.RetryPolicy(
            num_retries=number(2),
            retry_back_off={"base_interval": seconds(0.1), "max_interval": seconds(1)},
        ),
    )


def _keys_url(issuer: ExternalIssuer) -> str:
    if not issuer.jwks_url:
        raise Bug(f"the keys of {issuer.url} were not discovered before the view was published")
    return issuer.jwks_url


def _canonical(jwks: str) -> str:
    return json.dumps(json.loads(jwks), sort_keys=True, separators=(",", ":"))
