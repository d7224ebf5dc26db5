"""Bytes joined by hand are what the protobuf library would have written."""

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.service.discovery.v3 import discovery_pb2

from idi.parts.gateway.envoy.resources import TYPE_URL, Kind
from idi.parts.gateway.envoy.session import Request, Response
from idi.parts.gateway.envoy.wire import Malformed, decode_request, encode_resource, encode_response
from idi.parts.gateway.envoy.words import MAX_CHARACTERS, shorten


def test_a_response_reads_as_one_message() -> None:
    resources = tuple(encode_resource(Kind.CLUSTER, name, cluster_pb2.Cluster(name=name)) for name in "ab")
    data = encode_response(Response(Kind.CLUSTER, "7", resources, ("gone",)))
    message = discovery_pb2.DeltaDiscoveryResponse.FromString(data)
    assert (message.type_url, message.nonce) == (TYPE_URL[Kind.CLUSTER], "7")
    assert list(message.removed_resources) == ["gone"]
    for entry, resource in zip(message.resources, resources, strict=True):
        assert (entry.name, entry.version) == (resource.name, resource.version)
        assert cluster_pb2.Cluster.FromString(entry.resource.value).name == resource.name


def test_the_same_change_is_the_same_bytes_for_every_stream() -> None:
    resource = encode_resource(Kind.CLUSTER, "a", cluster_pb2.Cluster(name="a"))
    one = encode_response(Response(Kind.CLUSTER, "7", (resource,), ()))
    assert encode_response(Response(Kind.CLUSTER, "7", (resource,), ())) is one


def test_a_request_is_decoded() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(
        type_url=TYPE_URL[Kind.ASSIGNMENT],
        resource_names_subscribe=["a"],
        resource_names_unsubscribe=["b"],
        initial_resource_versions={"c": "1"},
        response_nonce="7",
    )
    message.node.id = "n"
    assert decode_request(message.SerializeToString()) == (
        "n",
        Request(Kind.ASSIGNMENT, ("a",), ("b",), {"c": "1"}, "7"),
    )
    message.error_detail.message = "no"
    assert decode_request(message.SerializeToString())[1] == Request(
        Kind.ASSIGNMENT, ("a",), ("b",), {"c": "1"}, "7", "no"
    )
    message.error_detail.message = ""
    refused = decode_request(message.SerializeToString())[1]
    assert refused is not None
    assert refused.error


def test_a_type_that_is_not_served_is_none() -> None:
    message = discovery_pb2.DeltaDiscoveryRequest(type_url="type.googleapis.com/other")
    assert decode_request(message.SerializeToString()) == ("", None)


def test_garbage_is_malformed() -> None:
    with pytest.raises(Malformed):
        decode_request(b"\xff\xff\xff")


@pytest.mark.parametrize(
    ("said", "short"),
    [
        (
            "Error adding/updating listener(s) gateway: cannot bind '203.0.113.77:1': Cannot assign requested address",
            "Error adding/updating listener(s) gateway: cannot bind '203.0.113.77:1': Cannot assign requested address",
        ),
        (
            "Proto constraint validation failed (ClusterValidationError.ConnectTimeout: embedded message failed "
            'validation | caused by DurationValidationError.Seconds: value must be greater than 0): name: "x"\n',
            "Duration.Seconds: value must be greater than 0",
        ),
        ("a\n  b", "a b"),
    ],
)
def test_words_are_shortened(said: str, short: str) -> None:
    assert shorten(said) == short


def test_long_words_are_cut() -> None:
    assert len(shorten("x" * 5000)) == MAX_CHARACTERS
