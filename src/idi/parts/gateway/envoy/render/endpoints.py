"""Assignments: one locality per revision, weighted by its share."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from idi.parts.gateway.envoy.render.proto import number, socket_address
from idi.parts.gateway.envoy.resources import Kind, Resource
from idi.parts.gateway.envoy.wire import encode_resource
from idi.traffic.types import Assignment, EndpointGroup


def assignment_resource(assignment: Assignment) -> Resource:
    """Groups without a share are left out: the weight of a locality is at least 1 by Envoy's rules."""
    groups = [_group(group) for group in assignment.groups if group.weight > 0 and group.endpoints]
    message = endpoint_pb2.ClusterLoadAssignment(cluster_name=assignment.service, endpoints=groups)
    return encode_resource(Kind.ASSIGNMENT, assignment.service, message)


def _group(group: EndpointGroup) -> endpoint_components_pb2.LocalityLbEndpoints:
    endpoints = [
        endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(
                address=socket_address(endpoint.address, endpoint.port)
            ),
            load_balancing_weight=number(1),
        )
        for endpoint in sorted(group.endpoints, key=lambda endpoint: endpoint.instance)
    ]
    return endpoint_components_pb2.LocalityLbEndpoints(
        locality=base_pb2.Locality(zone=group.revision),
        lb_endpoints=endpoints,
        load_balancing_weight=number(group.weight),
    )
