"""The programs of a cluster: built from Go modules once per version, kept outside the checkout.

The sources are pinned by go.mod and go.sum, and a build may not change them. A program's folder is named by a hash
of those files and of the flags, so another version is another folder and nothing is ever out of date. A build works in
a folder that no one else sees and is renamed into place whole; the lock keeps two builders apart, and what a crash
left is swept away by the next one to hold it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster.layout import cache

SOURCES = Path(__file__).with_name("sources")
KUBERNETES = "1.34.4"
HELM = "4.3.1"
BUILD_S = 3600.0


class CannotBuild(Exception):
    """A program of the cluster can't be had here."""


@dataclass(frozen=True)
class Program:
    name: str
    package: str = "."
    links: str = ""
    """What the linker writes into it, such as the version."""
    also: tuple[str, ...] = ()
    """Further names that it is called by: it does what it is called."""


_STAMP = "k8s.io/component-base/version"
PROGRAMS = (
    Program(
        "hyperkube",
        links=f"-X {_STAMP}.gitVersion=v{KUBERNETES} -X {_STAMP}.gitMajor=1 -X {_STAMP}.gitMinor=34",
        also=("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy"),
    ),
    Program("kube-router", "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router"),
    Program("local-path-provisioner", "github.com/rancher/local-path-provisioner"),
    Program("metrics-server", "sigs.k8s.io/metrics-server/cmd/metrics-server"),
    Program("coredns", "github.com/coredns/coredns"),
    Program("tool"),
    Program("helm", "helm.sh/helm/v4/cmd/helm", links=f"-X helm.sh/helm/v4/internal/version.version=v{HELM}"),
    Program("kubeconform", "github.com/yannh/kubeconform/cmd/kubeconform"),
)


def programs() -> dict[str, Path]:
    """Every program by the name that it is called by; builds what is not there yet."""
    found: dict[str, Path] = {}
    for program in PROGRAMS:
        folder = built(program)
        found |= {name: folder / name for name in (program.name, *program.also)}
    return found


def missing() -> list[str]:
    """The names of the programs that would have to be built first."""
    return [program.name for program in PROGRAMS if not folder_of(program).is_dir()]


def folder_of(program: Program) -> Path:
    digest = hashlib.sha256(f"{program}{platform.machine()}".encode())
    for file in sorted((SOURCES / program.name).iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return cache() / "programs" / f"{program.name}-{digest.hexdigest()[:16]}"


def built(program: Program) -> Path:
    """The folder with the program, which is built there if it has to be."""
    folder = folder_of(program)
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(folder.parent / f".{program.name}.lock"):
        if not folder.is_dir():
            part = folder.parent / f".{program.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            _build(program, part / program.name)
            for name in program.also:
                (part / name).symlink_to(program.name)
            part.rename(folder)
    return folder


def _build(program: Program, target: Path) -> None:
    go = shutil.which("go")
    if not go:
        raise CannotBuild(f"{program.name} has to be built, and there is no `go` on PATH")
    began = time.monotonic()
    print(f"test cluster: building {program.name} (once per version)", file=sys.stderr, flush=True)
    flags = ["-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", f"-s -w {program.links}".strip()]
    done = subprocess.run(
        [go, "build", *flags, "-o", str(target), program.package],
        cwd=SOURCES / program.name,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    if done.returncode:
        raise CannotBuild(f"{program.name} does not build:\n{done.stderr[-3000:]}")
    took = time.monotonic() - began
    print(f"test cluster: {program.name} built in {took:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go of it when the holder ends, however it does."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
