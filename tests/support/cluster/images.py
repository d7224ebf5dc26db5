"""Images without a builder: layers, a configuration and a manifest, written and pushed as the OCI specifications say.

The same files give the same bytes and so the same digest, which is therefore known before there is a registry to
push to. `Debian` in base.py is for what needs a distribution below it.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import io
import json
import platform
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import REGISTRY

NOBODY = 65532
REQUEST_S = 60.0
AGAIN_S = 0.05
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Image:
    """One layer is enough; `repository` is its name in the registry."""

    repository: str
    layer: bytes
    """A gzipped tar."""
    layer_digest: str
    """Of the tar itself."""
    entrypoint: Sequence[str] = ()
    user: str = f"{NOBODY}:{NOBODY}"
    environment: Sequence[str] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)

    @property
    def config(self) -> bytes:
        inner = {"Entrypoint": list(self.entrypoint), "User": self.user, "Env": list(self.environment)}
        machine = platform.machine()
        document = {
            "architecture": ARCHITECTURE.get(machine, machine),
            "os": "linux",
            "config": inner,
            "rootfs": {"type": "layers", "diff_ids": [self.layer_digest]},
            "history": [{"created_by": "tests"}],
        }
        return json.dumps(document, sort_keys=True).encode()

    @property
    def manifest(self) -> bytes:
        layer = {"mediaType": LAYER, "digest": digest(self.layer), "size": len(self.layer)}
        config = {"mediaType": CONFIG, "digest": digest(self.config), "size": len(self.config)}
        document = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
        return json.dumps(document, sort_keys=True).encode()

    @property
    def reference(self) -> str:
        """By digest, as a pod names it."""
        return f"{REGISTRY}/{self.repository}@{digest(self.manifest)}"


def image(repository: str, files: Mapping[str, Path | str], *entrypoint: str) -> Image:
    """An image with these programs; a text is the target of a link."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name.lstrip("/"))
            member.mode = 0o755
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                data = content.read_bytes()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    tar_bytes = raw.getvalue()
    # Level 1: it goes a few millimetres, not over a network.
    layer = gzip.compress(tar_bytes, compresslevel=1, mtime=0)
    return Image(repository, layer, digest(tar_bytes), entrypoint)


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@dataclass(frozen=True)
class Registry:
    """The registry inside, through its port on 127.0.0.1."""

    port: int

    @property
    def address(self) -> str:
        """What a builder on this machine calls it by; pods say `registry.idi.test`."""
        return f"127.0.0.1:{self.port}"

    def push(self, pushed: Image, tag: str = "latest") -> str:
        """Push it unless it is there; its reference by digest."""
        self._blob(pushed.repository, digest(pushed.layer), lambda: pushed.layer)
        self._blob(pushed.repository, digest(pushed.config), lambda: pushed.config)
        path = f"/v2/{pushed.repository}/manifests/{tag}"
        self._ask("PUT", path, pushed.manifest, {"Content-Type": MANIFEST}, {201})
        return pushed.reference

    def push_kept(self, manifest: bytes, blobs: Path, repository: str, tag: str = "latest") -> str:
        """Push what a builder made, whose blobs are files named by their digests; its reference by digest."""
        described = json.loads(manifest)
        for one in (*described["layers"], described["config"]):
            self._blob(repository, one["digest"], (blobs / one["digest"].split(":")[1]).read_bytes)
        path = f"/v2/{repository}/manifests/{tag}"
        self._ask("PUT", path, manifest, {"Content-Type": MANIFEST}, {201})
        return f"{REGISTRY}/{repository}@{digest(manifest)}"

    def digest_of(self, repository: str, tag: str) -> str:
        accept = f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"
        path = f"/v2/{repository}/manifests/{tag}"
        _, headers, _ = self._ask("HEAD", path, None, {"Accept": accept}, {200})
        return headers["docker-content-digest"]

    def manifest_of(self, repository: str, tag: str) -> bytes:
        path = f"/v2/{repository}/manifests/{tag}"
        return self._ask("GET", path, None, {"Accept": MANIFEST}, {200})[2]

    def await_ready(self, timeout_s: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._ask("GET", "/v2/", None, {}, {200})
                return
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"the registry is not ready within {timeout_s:g} s: {error}"
                    ) from error
                time.sleep(AGAIN_S)

    def _blob(self, repository: str, named: str, content: Callable[[], bytes]) -> None:
        uploads = f"/v2/{repository}/blobs"
        status, _, _ = self._ask("HEAD", f"{uploads}/{named}", None, {}, {200, 404})
        if status == 200:
            return
        _, headers, _ = self._ask("POST", f"{uploads}/uploads/", None, {"Content-Length": "0"}, {202})
        # The registry names itself by its address inside; only the path is of use out here.
        location = "/" + headers["location"].split("://", 1)[-1].split("/", 1)[1]
        joint = "&" if "?" in location else "?"
        kind = {"Content-Type": "application/octet-stream"}
        self._ask("PUT", f"{location}{joint}digest={named}", content(), kind, {201})

    def _ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], good: set[int]
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=REQUEST_S)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status not in good:
            raise ClusterError(f"registry: {method} {path}: {answer.status} {text[:400]!r}")
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, text
