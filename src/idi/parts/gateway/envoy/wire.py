"""Between bytes on the stream and the session's own values.

Responses are joined from entries that are encoded already: in protobuf's wire format the fields of a
message simply follow each other, so a response is its frame (type, nonce, removed names) plus the entries.
The last few are kept, because one change goes to many streams in the same bytes; secrets never are.
"""

from __future__ import annotations

from functools import lru_cache

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError, Message

from idi.parts.gateway.envoy.resources import KIND_OF_URL, TYPE_URL, Key, Kind, Resource, version_of
from idi.parts.gateway.envoy.session import Request, Response


def encode_resource(kind: Kind, name: str, message: Message, needs: tuple[Key, ...] = ()) -> Resource:
    """Encode a typed Envoy resource; equal messages give equal bytes (maps are sorted)."""
    return resource_from_bytes(kind, name, message.SerializeToString(deterministic=True), needs)


def resource_from_bytes(kind: Kind, name: str, content: bytes, needs: tuple[Key, ...] = ()) -> Resource:
    version = version_of(content)
    entry = discovery_pb2.Resource(name=name, version=version)
    entry.resource.type_url = TYPE_URL[kind]
    entry.resource.value = content
    frame = discovery_pb2.DeltaDiscoveryResponse(resources=[entry])
    return Resource(kind, name, version, frame.SerializeToString(deterministic=True), needs)


def encode_response(response: Response) -> bytes:
    entries = tuple(resource.entry for resource in response.resources)
    join = _join_once if response.kind is Kind.SECRET else _join
    return join(response.kind, response.nonce, entries, response.removed)


def _join_once(kind: Kind, nonce: str, entries: tuple[bytes, ...], removed: tuple[str, ...]) -> bytes:
    frame = discovery_pb2.DeltaDiscoveryResponse(
        type_url=TYPE_URL[kind], nonce=nonce, removed_resources=removed
    )
    return b"".join((frame.SerializeToString(), *entries))


_join = lru_cache(maxsize=64)(_join_once)


class Malformed(ValueError):
    """What came in is not a request of this protocol."""


def decode_request(data: bytes) -> tuple[str, Request | None]:
    """The node id (empty when the request names none) and the request; None for a type that is not served."""
    try:
        message = discovery_pb2.DeltaDiscoveryRequest.FromString(data)
    except DecodeError as error:
        raise Malformed("not a DeltaDiscoveryRequest") from error
    kind = KIND_OF_URL.get(message.type_url)
    if kind is None:
        return message.node.id, None
    return message.node.id, Request(
        kind,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
        message.response_nonce,
        (message.error_detail.message or "refused without a reason")
        if message.HasField("error_detail")
        else "",
    )
