"""The few shapes of Envoy's API that every resource is made of."""

from __future__ import annotations

import ipaddress

from envoy.config.core.v3 import address_pb2, base_pb2, config_source_pb2, extension_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message


def packed(message: Message) -> any_pb2.Any:
    """An Any with deterministic content."""
    return any_pb2.Any(
        type_url=f"type.googleapis.com/{message.DESCRIPTOR.full_name}",
        value=message.SerializeToString(deterministic=True),
    )


def seconds(value: float) -> duration_pb2.Duration:
    whole = int(value)
    return duration_pb2.Duration(seconds=whole, nanos=round((value - whole) * 1e9))


def number(value: int) -> wrappers_pb2.UInt32Value:
    return wrappers_pb2.UInt32Value(value=value)


def flag(value: bool) -> wrappers_pb2.BoolValue:
    return wrappers_pb2.BoolValue(value=value)


def socket_address(address: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(socket_address=address_pb2.SocketAddress(address=address, port_value=port))


def pipe(path: str, mode: int = 0) -> address_pb2.Address:
    return address_pb2.Address(pipe=address_pb2.Pipe(path=path, mode=mode))


def is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def ads(wait_s: float = 15.0) -> config_source_pb2.ConfigSource:
    """From the one stream. What does not come within `wait_s` is taken for not there; 0: wait for ever."""
    return config_source_pb2.ConfigSource(
        ads=config_source_pb2.AggregatedConfigSource(),
        resource_api_version=config_source_pb2.ApiVersion.V3,
        initial_fetch_timeout=seconds(wait_s),
    )


def extension(name: str, message: Message) -> extension_pb2.TypedExtensionConfig:
    return extension_pb2.TypedExtensionConfig(name=name, typed_config=packed(message))


def header(name: str, value: str, *, append: bool = False) -> base_pb2.HeaderValueOption:
    action = base_pb2.HeaderValueOption
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, value=value),
        append_action=action.APPEND_IF_EXISTS_OR_ADD if append else action.OVERWRITE_IF_EXISTS_OR_ADD,
    )
