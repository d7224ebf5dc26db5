"""Base images with no registry to pull from: what Dockerfiles are given as BASE or BUILDER here.

Each is made once and kept as one layer: a Debian with Python or with Node from Debian's packages, and the Go of this
machine. They stand in for the public images that the Dockerfiles name by default, with the same commands on PATH.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.support.cluster.group import ClusterError
from tests.support.cluster.images import Image
from tests.support.cluster.layout import cache
from tests.support.cluster.programs import CannotBuild, exclusive

SUITE = "bookworm"
PACKAGES = {
    "python": ("python3", "python-is-python3", "ca-certificates"),
    "node": ("nodejs", "ca-certificates"),
}
PYTHON, NODE, GO = "idi-test/python", "idi-test/node", "idi-test/go"
MAKE_S = 900.0
DROPPED = (
    "./dev/*",
    "./var/cache/*",
    "./var/lib/apt/lists/*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./tmp/*",
)
GO_USES = ("bin", "pkg/include", "pkg/tool", "src", "go.env", "VERSION")
PATHS = "/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def debian_python() -> Image:
    """A Debian with Python 3.11 as `python`; from the cache, or made there (about two minutes)."""
    return _debian("python")


def debian_node() -> Image:
    """A Debian with its Node as `node`; from the cache, or made there (about two minutes)."""
    return _debian("node")


def go_toolchain() -> Image:
    """The Go of this machine as `go` and nothing else, for builds whose result stands alone."""
    go = shutil.which("go")
    if not go:
        raise CannotBuild("an image with Go has to be made, and there is no `go` on PATH")
    asked = subprocess.run(
        [go, "env", "-json", "GOROOT", "GOVERSION"], capture_output=True, text=True, timeout=60
    )
    known = json.loads(asked.stdout)
    root, version = Path(known["GOROOT"]), known["GOVERSION"]

    def make(part: Path, layer: Path) -> None:
        with (
            gzip.GzipFile(layer, "wb", compresslevel=1, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
        ):
            folder = tarfile.TarInfo("tmp")
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(folder)
            passwd = b"root:x:0:0:root:/root:/bin/sh\n"
            file = tarfile.TarInfo("etc/passwd")
            file.size = len(passwd)
            tar.addfile(file, io.BytesIO(passwd))
            for name in GO_USES:
                if (root / name).exists():
                    tar.add(root / name, f"usr/local/go/{name}", filter=_plain)

    layer, digest = _kept(f"go-{version}", repr((version, GO_USES)), make)
    variables = (f"PATH={PATHS}", "HOME=/root", "GOCACHE=/root/.cache/go-build", "GOPATH=/go", "TMPDIR=/tmp")
    return Image(GO, layer, digest, user="0:0", environment=variables)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return None if member.name.endswith("/testdata") else member


def _debian(name: str) -> Image:
    packages = PACKAGES[name]

    def make(part: Path, layer: Path) -> None:
        if not shutil.which("debootstrap"):
            raise ClusterError("a Debian base has to be made, and there is no debootstrap (make test-parts)")
        root = part / "root"
        # Its mounts stay in a mount namespace that ends with it.
        private = ["unshare", "--mount", "--propagation", "private"]
        _run(
            [
                *private,
                "debootstrap",
                "--variant=minbase",
                f"--include={','.join(packages)}",
                SUITE,
                str(root),
            ]
        )
        excluded = [f"--exclude={pattern}" for pattern in DROPPED]
        _run(["tar", "-C", str(root), "--numeric-owner", "--sort=name", *excluded, "-czf", str(layer), "."])
        shutil.rmtree(root)

    layer, digest = _kept(f"debian-{SUITE}", repr((SUITE, packages, DROPPED)), make)
    return Image({"python": PYTHON, "node": NODE}[name], layer, digest, user="0:0")


def _kept(name: str, inputs: str, make: Callable[[Path, Path], None]) -> tuple[bytes, str]:
    """The gzipped layer and the digest of what is in it; made if nothing was made of these inputs before."""
    key = hashlib.sha256(inputs.encode()).hexdigest()[:16]
    folder = cache() / "images" / f"{name}-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.parent / f".{name}-{key}.lock"):
            if not folder.is_dir():
                part = folder.parent / f".{name}-{key}.part"
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                layer = part / "layer.tar.gz"
                make(part, layer)
                (part / "digest").write_text(_content_digest(layer))
                part.rename(folder)
    return (folder / "layer.tar.gz").read_bytes(), (folder / "digest").read_text()


def _content_digest(layer: Path) -> str:
    digest = hashlib.sha256()
    with gzip.open(layer) as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_S)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
