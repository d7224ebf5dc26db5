"""The pod's token as Envoy takes it: handed on in the one file that it watches.

Kubelet renews the token in a file of its own. Envoy could watch that one, which would cost it a second inotify
instance, of which a node has few (see `render.cluster_bootstrap`); looking every other second costs us nothing, and a
token is renewed minutes before it ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

from idi.parts.clients import private_file
from idi.parts.gateway.envoy.arguments import TOKEN, TOKEN_FILE

LOOK_S = 2.0
LONGEST = 16 * 1024
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

_log = logging.getLogger(__name__)


class Token:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._trouble = ""

    def hand_on(self, folder: Path) -> None:
        """Write it there if it changed: whole or not at all, for nobody else to read."""
        try:
            with open(self.path, "rb") as file:
                token = file.read(LONGEST).decode("ascii").strip()
            private_file.write(folder / TOKEN_FILE, subscription(token))
            self._trouble = ""
        except (OSError, ValueError) as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("Envoy keeps the token that it has: %s", error)

    async def keep(self, folder: Path) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.hand_on(folder)


def subscription(token: str) -> bytes:
    """As JSON that Envoy reads; its protobufs would be ten times our memory."""
    secret = {"@type": SECRET, "name": TOKEN, "generic_secret": {"secret": {"inline_string": token}}}
    return json.dumps({"resources": [secret]}).encode()
