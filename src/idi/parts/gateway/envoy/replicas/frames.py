"""What control and its replicas say to each other: documents of JSON, one a message, each of a known kind.

Down: `view` (what is different, or all of it), `put` (one assignment), `secrets` (certificates of proxies),
`certificate` (the replica's own). The first three carry the number of the change. Up: `Report`. All of it is bounded
by the size of a message; a document that makes no sense ends the stream, and a new one begins with everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from idi.parts.gateway.envoy.plane import Standing
from idi.parts.gateway.envoy.resources import Kind, Resource
from idi.parts.gateway.envoy.snapshot import plain, resource_of
from idi.parts.gateway.interface import Rejection

SERVICE = "idi.xds.Replicas"
METHOD = "Attach"

MAX_FRAME_BYTES = 64 * 1024 * 1024
MAX_REJECTIONS = 8
"""Of one proxy; what is wrong with it is clear by then."""


class Malformed(ValueError):
    """What came in is none of these documents."""


@dataclass(frozen=True, slots=True)
class ViewChange:
    seq: int
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Put:
    seq: int
    resource: Resource


@dataclass(frozen=True, slots=True)
class Secrets:
    seq: int
    nodes: Mapping[str, tuple[Resource, ...]] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificate:
    chain: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Report:
    """What changed at a replica, or with `whole` all: `applied` is the number up to which it has taken control's
    changes; per node how it stands (its `since` as an age in seconds), or None where its stream has gone."""

    applied: int
    nodes: Mapping[str, Standing | None]
    whole: bool = False


Down = ViewChange | Put | Secrets | Certificate


def encode(frame: Down | Report) -> bytes:
    match frame:
        case ViewChange(seq, document):
            body: dict[str, Any] = {"do": "view", "seq": seq, "view": document}
        case Put(seq, resource):
            body = {"do": "put", "seq": seq, "kind": resource.kind.name, "resource": plain(resource)}
        case Secrets(seq, nodes):
            given = {node: [plain(each) for each in secrets] for node, secrets in nodes.items()}
            body = {"do": "secrets", "seq": seq, "nodes": given}
        case Certificate(chain, key):
            body = {"do": "certificate", "chain": chain.decode(), "key": key.decode()}
        case Report(applied, nodes, whole):
            stand = {node: each and _plain_standing(each) for node, each in nodes.items()}
            body = {"applied": applied, "nodes": stand, "whole": whole}
    return json.dumps(body, separators=(",", ":")).encode()


def decode_down(data: bytes) -> Down:
    try:
        body = json.loads(data)
        match body["do"]:
            case "view":
                return ViewChange(int(body["seq"]), body["view"])
            case "put":
                return Put(int(body["seq"]), resource_of(Kind[body["kind"]], body["resource"]))
            case "secrets":
                nodes = {
                    node: tuple(resource_of(Kind.SECRET, each) for each in secrets)
                    for node, secrets in body["nodes"].items()
                }
                return Secrets(int(body["seq"]), nodes)
            case "certificate":
                return Certificate(body["chain"].encode(), body["key"].encode())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not what control says to a replica: {error}") from error
    raise Malformed("control says something that this replica does not know")


def decode_report(data: bytes) -> Report:
    try:
        body = json.loads(data)
        nodes = {
            str(node): None if each is None else _standing(node, each) for node, each in body["nodes"].items()
        }
        return Report(int(body["applied"]), nodes, bool(body["whole"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Malformed(f"not a replica's report: {error}") from error


def _plain_standing(standing: Standing) -> list[Any]:
    rejections = [[each.resource, each.message, each.at] for each in standing.rejections[:MAX_REJECTIONS]]
    return [standing.complete, standing.fresh, standing.behind, round(standing.since, 3), rejections]


def _standing(node: str, plain: Iterable[Any]) -> Standing:
    complete, fresh, behind, since, rejections = plain
    return Standing(
        bool(complete),
        bool(fresh),
        None if behind is None else int(behind),
        float(since),
        tuple(Rejection(node, str(what), str(words), float(at)) for what, words, at in rejections),
    )
