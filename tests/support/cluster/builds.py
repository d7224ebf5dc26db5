"""Images of Dockerfiles, built with buildah inside a cluster and kept from one run of the tests to the next.

Buildah runs inside the control plane's group: its network has the registry, which has the bases, and what it leaves in
/run is that group's own and ends with it. Two things outlive it. Its storage, so that a change of the sources builds
the last layer alone; it is thrown away when it has grown, and after a build that failed, which may have left it half
done. And the store of what was built: blobs by digest, and a manifest for each set of inputs, from which a later run
pushes and builds nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster.base import debian_node, debian_python, go_toolchain
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.images import Image, digest
from tests.support.cluster.layout import API, REGISTRY_PORT, cache
from tests.support.cluster.programs import exclusive
from tools.image_context import EPOCH, IDI, NAMES, Context

BUILD_S = 600.0
BUILDER = "buildah, layers, overlay: 1"
"""One more, and everything is built again: how an image is made is one of its inputs."""
MOST_LAYERS = 400
"""In buildah's storage. A change of the sources adds a dozen, of 6 MB each."""
MOST_WHEELS = 4
"""Sets of fetched wheels, 130 MB each: one for each requirements.txt."""
MOST_BUILDS = 6
"""Kept of each image; the ones used least lately go, with the blobs that are nobody's then."""


@dataclass(frozen=True)
class Built:
    manifest: bytes
    blobs: Path
    seconds: float = 0.0
    """That it took to build; nothing, where it was there."""

    @property
    def digest(self) -> str:
        return digest(self.manifest)

    @property
    def layers(self) -> list[int]:
        """The bytes of each layer as a node pulls it, from the base's on."""
        return [one["size"] for one in json.loads(self.manifest)["layers"]]

    def whole(self) -> bool:
        described = json.loads(self.manifest)
        names = [one["digest"].split(":")[1] for one in (*described["layers"], described["config"])]
        return all((self.blobs / name).is_file() for name in names)


class Images(Mapping[str, str]):
    """Each image of tools/image_context.py by its reference in the cluster's registry; built when it is asked for."""

    def __init__(self, cluster: Cluster, helm: Path | None = None) -> None:
        self._cluster = cluster
        self._helm = helm
        self._pushed: dict[str, str] = {}
        self.built: dict[str, Built] = {}
        """For figures: those that were asked for."""

    def __getitem__(self, name: str) -> str:
        if name not in NAMES:
            raise KeyError(name)
        if name not in self._pushed:
            made = self.built[name] = kept(self._cluster, _context(name, self._helm))
            push = self._cluster.registry.push_kept
            self._pushed[name] = push(made.manifest, made.blobs, f"idi/{name}")
        return self._pushed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(NAMES)

    def __len__(self) -> int:
        return len(NAMES)


def kept(cluster: Cluster, context: Context) -> Built:
    """The image of this context: from the store, or built and put there."""
    record = _record(context)
    if found := _recorded(record):
        return found
    record.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(_folder() / ".builds.lock"):
        if found := _recorded(record):
            return found
        folder = cluster.layout.folder / f"context-{context.name}"
        began = time.monotonic()
        try:
            context.write(folder)
            made = build(
                cluster,
                folder,
                context.name,
                bases=bases_of(context.name),
                arguments=arguments_of(context),
                dockerfile=context.dockerfile,
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        took = time.monotonic() - began
        print(f"test cluster: image {context.name} built in {took:.0f} s", file=sys.stderr, flush=True)
        part = record.with_suffix(".part")
        part.write_bytes(made.manifest)
        part.rename(record)
        _tidy()
    return Built(made.manifest, made.blobs, took)


def unbuilt(helm: Path | None = None) -> list[str]:
    """The images that would have to be built first."""
    return [name for name in NAMES if _recorded(_record(_context(name, helm))) is None]


def bases_of(name: str) -> dict[str, Image]:
    """What stands in for the public images that the Dockerfile names, by its arguments."""
    match name:
        case "standin-go":
            return {"BUILDER": go_toolchain()}
        case "standin-node":
            return {"BASE": debian_node()}
        case _:
            return {"BASE": debian_python()}


def arguments_of(context: Context) -> dict[str, str]:
    """What a Dockerfile is told beside its bases, as `make images` does it."""
    return {"VERSION": context.version} if context.name in IDI else {}


def build(
    cluster: Cluster,
    context: Path,
    name: str,
    *,
    bases: Mapping[str, Image],
    arguments: Mapping[str, str] | None = None,
    dockerfile: Path | None = None,
    again: bool = False,
) -> Built:
    """Build a Dockerfile, in which each of the bases is an argument; `again` does it without what is there already."""
    address = f"{API}:{REGISTRY_PORT}"
    given = dict(arguments or {})
    for argument, base in bases.items():
        cluster.registry.push(base)
        given[argument] = f"{address}/{base.repository}@{digest(base.manifest)}"
    storage = _folder() / "storage"
    # It makes a lock in this folder, of all that it leaves the one thing outside its storage and /run.
    settings = cluster.layout.folder / "containers.conf"
    settings.write_text('[network]\nnetwork_config_dir = "/run/cni"\n')
    buildah = ["env", f"CONTAINERS_CONF={settings}", "BUILDAH_ISOLATION=chroot", "buildah"]
    buildah += ["--storage-driver=overlay", f"--root={storage}", "--runroot=/run/containers/storage"]
    out, tag = cluster.layout.folder / f"built-{name}", f"localhost/idi-test-built/{name}"
    command = [*buildah, "build", "--tls-verify=false", "--layers", f"--timestamp={EPOCH}", "--quiet"]
    command += ["--no-cache"] if again else []
    command += [f"--build-arg={argument}={value}" for argument, value in given.items()]
    command += ["--file", str(dockerfile or context / "Dockerfile"), "--tag", tag, str(context)]
    push = [*buildah, "push", "--quiet", tag, f"oci:{out}"]
    _folder().mkdir(parents=True, exist_ok=True)
    with exclusive(_folder() / ".storage.lock"):
        try:
            for words in (command, push):
                cluster.control.run(*words, timeout_s=BUILD_S)
            return _stored(out)
        except BaseException:
            shutil.rmtree(storage, ignore_errors=True)
            raise
        finally:
            shutil.rmtree(out, ignore_errors=True)
            layers = storage / "overlay"
            if layers.is_dir() and len(os.listdir(layers)) > MOST_LAYERS:
                shutil.rmtree(storage, ignore_errors=True)


def _stored(layout: Path) -> Built:
    """Take an image out of the folder that the builder wrote, an OCI image layout, into the store."""
    [described] = json.loads((layout / "index.json").read_text())["manifests"]
    source, blobs = layout / "blobs" / "sha256", _folder() / "blobs"
    manifest = (source / described["digest"].split(":")[1]).read_bytes()
    blobs.mkdir(exist_ok=True)
    for blob in source.iterdir():
        blob.rename(blobs / blob.name)
    return Built(manifest, blobs)


def _context(name: str, helm: Path | None) -> Context:
    return Context(name, _folder() / "wheels", helm=helm)


def _record(context: Context) -> Path:
    """Where the manifest of what is built of these inputs is kept."""
    bases = [f"{argument} {base.layer_digest}" for argument, base in bases_of(context.name).items()]
    key = hashlib.sha256("\n".join([BUILDER, context.fingerprint(), *bases]).encode()).hexdigest()[:16]
    return _folder() / "builds" / f"{context.name}_{key}.json"


def _recorded(record: Path) -> Built | None:
    try:
        found = Built(record.read_bytes(), _folder() / "blobs")
        # So that whoever tidies up sees that it is in use.
        record.touch()
    except FileNotFoundError:
        return None
    return found if found.whole() else None


def _tidy() -> None:
    """Forget the builds that were used least lately; by the holder of the lock."""
    used: set[str] = set()
    of_each: dict[str, int] = {}
    for record in sorted(
        (_folder() / "builds").glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True
    ):
        name = record.name.split("_")[0]
        of_each[name] = of_each.get(name, 0) + 1
        if of_each[name] > MOST_BUILDS:
            record.unlink()
            continue
        described = json.loads(record.read_bytes())
        used |= {one["digest"].split(":")[1] for one in (*described["layers"], described["config"])}
    for blob in (_folder() / "blobs").iterdir():
        if blob.name not in used:
            blob.unlink()
    sets = sorted((_folder() / "wheels").glob("cp*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in sets[MOST_WHEELS:]:
        shutil.rmtree(folder, ignore_errors=True)


def _folder() -> Path:
    return cache() / "images"
