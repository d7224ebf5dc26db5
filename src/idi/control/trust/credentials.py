"""What a proxy proves itself with: a credential that control can check without remembering it.

It is the node's name and an HMAC of it under a key that lies in the key folder (0600, outside the
checkout), so a control that was killed and started again knows its proxies at once, and there is no
list to keep. It opens the xDS stream of that one node and nothing else.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

KEY_FILE = "proxy-key"


class Credentials:
    def __init__(self, key: bytes) -> None:
        self._key = key

    @staticmethod
    def load(folder: Path) -> Credentials:
        """The platform's key, made at the first call."""
        path = folder / KEY_FILE
        try:
            return Credentials(path.read_bytes())
        except FileNotFoundError:
            pass
        key = secrets.token_bytes(32)
        half_done = folder / f".{KEY_FILE}.new"
        half_done.unlink(missing_ok=True)
        handle = os.open(half_done, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(key)
            file.flush()
            os.fsync(file.fileno())
        os.rename(half_done, path)
        return Credentials(key)

    def issue(self, node: str) -> str:
        return f"{node}.{self._sign(node)}"

    async def verify(self, credential: str) -> str | None:
        """The node that a credential belongs to; None where it is no credential of ours."""
        node, _, signature = credential.rpartition(".")
        if node and hmac.compare_digest(signature.encode(), self._sign(node).encode()):
            return node
        return None

    def derive(self, purpose: str) -> bytes:
        """A key for another purpose, independent of this one."""
        return hmac.digest(self._key, b"\0" + purpose.encode(), "sha256")

    def _sign(self, node: str) -> str:
        return hmac.digest(self._key, node.encode(), "sha256").hex()
