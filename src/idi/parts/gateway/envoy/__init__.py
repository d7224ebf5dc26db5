"""Envoy as the data plane."""

import os

# Or every stranger's failed handshake is a line in the log. grpc reads it when it is imported.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
