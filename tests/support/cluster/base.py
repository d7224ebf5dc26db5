"""Images from Dockerfiles with no registry to pull from: a Debian with Python as their base, and buildah.

The base is made from Debian's packages once and kept as one layer. Buildah runs inside the control plane's group: its
network has the registry, and whatever it leaves in /var/lib and /run is that group's own and ends with it.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from pathlib import Path

from tests.support.cluster.cluster import Cluster
from tests.support.cluster.group import ClusterError
from tests.support.cluster.images import Image
from tests.support.cluster.layout import API, REGISTRY, REGISTRY_PORT, cache
from tests.support.cluster.programs import exclusive

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates")
BASE = "idi-test/python"
MAKE_S = 900.0
BUILD_S = 300.0
DROPPED = (
    "./dev/*",
    "./var/cache/*",
    "./var/lib/apt/lists/*",
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./tmp/*",
)


def debian_python() -> Image:
    """A Debian with Python 3.11; from the cache, or made there (about a minute)."""
    key = hashlib.sha256(repr((SUITE, PACKAGES, DROPPED)).encode()).hexdigest()[:16]
    folder = cache() / "images" / f"debian-{SUITE}-{key}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.parent / ".debian.lock"):
            if not folder.is_dir():
                part = folder.parent / ".debian.part"
                shutil.rmtree(part, ignore_errors=True)
                _make(part)
                part.rename(folder)
    return Image(BASE, (folder / "layer.tar.gz").read_bytes(), (folder / "digest").read_text(), user="0:0")


def build(cluster: Cluster, context: Path, repository: str, *, base: str = f"{BASE}:latest") -> str:
    """Build the folder's Dockerfile, whose argument BASE names its base; push it; the image by digest."""
    address = f"{API}:{REGISTRY_PORT}"
    name = f"{address}/{repository}:latest"
    # It makes a lock in this folder, of all that it leaves the one thing outside /var/lib and /run.
    settings = cluster.layout.folder / "containers.conf"
    settings.write_text('[network]\nnetwork_config_dir = "/run/cni"\n')
    buildah = (
        "env",
        f"CONTAINERS_CONF={settings}",
        "BUILDAH_ISOLATION=chroot",
        "STORAGE_DRIVER=vfs",
        "buildah",
    )
    argument = f"BASE={address}/{base}"
    run = cluster.control.run
    run(
        *buildah,
        "build",
        "--tls-verify=false",
        "--build-arg",
        argument,
        "-t",
        name,
        str(context),
        timeout_s=BUILD_S,
    )
    run(*buildah, "push", "--tls-verify=false", name, f"docker://{name}", timeout_s=BUILD_S)
    return f"{REGISTRY}/{repository}@{cluster.registry.digest_of(repository, 'latest')}"


def _make(part: Path) -> None:
    if not shutil.which("debootstrap"):
        raise ClusterError("a Debian base has to be made, and there is no debootstrap (make test-parts)")
    part.mkdir()
    root, layer = part / "root", part / "layer.tar.gz"
    # Its mounts stay in a mount namespace that ends with it.
    private = ["unshare", "--mount", "--propagation", "private"]
    _run([*private, "debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)])
    excluded = [f"--exclude={pattern}" for pattern in DROPPED]
    _run(["tar", "-C", str(root), "--numeric-owner", "--sort=name", *excluded, "-czf", str(layer), "."])
    digest = hashlib.sha256()
    with gzip.open(layer) as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    (part / "digest").write_text(f"sha256:{digest.hexdigest()}")
    shutil.rmtree(root)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=MAKE_S)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-2000:]}")
