"""Where an API server is, whom it is trusted as, and who asks it.

In a pod all of it is in two variables and a folder whose files kubelet replaces while the pod runs: a token lives an
hour or less, the authority changes when a cluster's is rotated. So the files are read again, at most once in
`FRESH_S` (kubelet renews a token at four fifths of its life), and at once after a refusal or a failed handshake.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from idi.parts.errors import PartError

FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
FRESH_S = 30.0
MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """`token` or `token_file` or a `certificate` (file of the certificate, file of its key) says who asks.

    `authority` is a file of certificates in PEM; empty means the machine's own.
    """

    url: str
    namespace: str = "default"
    authority: str = ""
    token: str = field(default="", repr=False)
    token_file: str = ""
    certificate: tuple[str, str] | None = None


def in_cluster(environment: Mapping[str, str] = os.environ, folder: Path = FOLDER) -> Access:
    """That of the pod that this runs in."""
    host = environment.get("KUBERNETES_SERVICE_HOST", "")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise PartError(
            "This is no pod of a Kubernetes cluster: KUBERNETES_SERVICE_HOST is not set.",
            "Run it from the platform's chart.",
            retryable=False,
        )
    for name in ("token", "ca.crt", "namespace"):
        if not (folder / name).is_file():
            raise PartError(
                f"The pod has no service account: there is no {folder / name}.",
                "Mount a token for the API server, ca.crt and namespace there (the platform's chart does).",
                retryable=False,
            )
    return Access(
        url=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        namespace=_read(folder / "namespace").decode().strip(),
        authority=str(folder / "ca.crt"),
        token_file=str(folder / "token"),
    )


class Credentials:
    """The current token and TLS settings of an `Access`."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._token = access.token
        self._trusted = b""
        self._context: ssl.SSLContext | None = None
        self._read_at = float("-inf")

    def token(self) -> str:
        self._refresh()
        return self._token

    def context(self) -> ssl.SSLContext | bool:
        """For aiohttp; a plain http URL needs none."""
        if not self.access.url.startswith("https:"):
            return True
        self._refresh()
        return self._context or True

    def stale(self) -> bool:
        """Read everything again now; whether the token or the authority is another one than before."""
        before = (self._token, self._context)
        self._read_at = float("-inf")
        self._refresh()
        return before != (self._token, self._context)

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._read_at < FRESH_S:
            return
        access = self.access
        if access.token_file:
            self._token = _read(Path(access.token_file)).decode("ascii", "replace").strip()
        trusted = b"".join(
            _read(Path(path)) for path in (access.authority, *(access.certificate or ())) if path
        )
        # A context costs a millisecond, and connections are shared only under the same one.
        if self._context is None or trusted != self._trusted:
            self._context, self._trusted = self._made(), trusted
        self._read_at = now

    def _made(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.access.authority or None)
            if self.access.certificate:
                context.load_cert_chain(*self.access.certificate)
        except (OSError, ValueError) as error:
            raise PartError(
                f"What proves the API server at {self.access.url} cannot be used: {error}.", retryable=False
            ) from None
        return context


def _read(path: Path) -> bytes:
    """Small files in memory that kubelet keeps: no thread is worth it."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError as error:
        # Kubelet replaces them as a whole, so this passes.
        raise PartError(f"{path} cannot be read: {error.strerror}.") from None
