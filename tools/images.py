"""`make images`: build the images of IDI and of the stand-ins with Docker or buildah, push them, say what they are.

On standard output there is one YAML document, each image by name, which a chart takes as values; by digest where it
was pushed, since a digest is what a registry gives. Progress and messages are on standard error. image_context.py
says what goes into an image, and why nothing is fetched by the builder.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.image_context import EPOCH, IDI, MACHINES, NAMES, PYTHON, ROOT, CannotPrepare, Context

ASK_S = 20.0
BUILD_S = 3600.0
SHOWN = 25
"""The last lines of a builder that failed."""


class Builder(Protocol):
    def build(
        self, context: Path, dockerfile: Path, tag: str, machine: str, arguments: Mapping[str, str]
    ) -> None:
        """Build it under this name; raises `CannotPrepare`."""

    def push(self, tag: str) -> str:
        """Push it; its digest."""


@dataclass(frozen=True)
class Buildah:
    insecure: bool

    def build(
        self, context: Path, dockerfile: Path, tag: str, machine: str, arguments: Mapping[str, str]
    ) -> None:
        words = [
            "build",
            "--layers",
            f"--timestamp={EPOCH}",
            f"--platform=linux/{MACHINES[machine]}",
            *self._tls,
        ]
        words += [f"--build-arg={name}={value}" for name, value in arguments.items()]
        _run(["buildah", *words, f"--file={dockerfile}", f"--tag={tag}", str(context)])

    def push(self, tag: str) -> str:
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, "digest")
            _run(["buildah", "push", *self._tls, f"--digestfile={written}", tag, f"docker://{tag}"])
            return written.read_text().strip()

    @property
    def _tls(self) -> list[str]:
        return ["--tls-verify=false"] if self.insecure else []


@dataclass(frozen=True)
class Docker:
    """Whether a registry may be insecure is for the daemon to know."""

    def build(
        self, context: Path, dockerfile: Path, tag: str, machine: str, arguments: Mapping[str, str]
    ) -> None:
        given = {**arguments, "SOURCE_DATE_EPOCH": str(EPOCH)}
        words = ["build", f"--platform=linux/{MACHINES[machine]}", f"--file={dockerfile}", f"--tag={tag}"]
        words += [f"--build-arg={name}={value}" for name, value in given.items()]
        _run(["docker", *words, str(context)], {"DOCKER_BUILDKIT": "1"})

    def push(self, tag: str) -> str:
        _run(["docker", "push", tag])
        said = _run(
            ["docker", "image", "inspect", "--format", "{{range .RepoDigests}}{{println .}}{{end}}", tag]
        )
        repository = tag.rpartition(":")[0]
        found = [line.split("@")[1] for line in said.split() if line.startswith(f"{repository}@")]
        if not found:
            raise CannotPrepare(
                f"docker pushed {tag} and knows no digest of it: look with docker image inspect {tag}"
            )
        return found[-1]


def builder(named: str, insecure: bool) -> Builder:
    """The one that was named, or the first that works here: a docker command may have no daemon to talk to."""
    if named in ("", "docker") and _works(["docker", "info"]):
        return Docker()
    if named in ("", "buildah") and _works(["buildah", "--version"]):
        return Buildah(insecure)
    what = named or "neither docker (with its daemon) nor buildah"
    raise CannotPrepare(
        f"{what} works here: install one of them, or lay the contexts out for another builder: --contexts FOLDER"
    )


def bases(given: argparse.Namespace, name: str) -> dict[str, str]:
    """What the Dockerfile is told about its bases; nothing leaves it with the public one."""
    match name:
        case "standin-node":
            return {"BASE": given.node_base} if given.node_base else {}
        case "standin-go":
            return {"BUILDER": given.go_builder} if given.go_builder else {}
        case _:
            return {"BASE": given.base} if given.base else {}


def run(given: argparse.Namespace) -> str:
    """Build what was asked for; the document of names and images."""
    work = ROOT / "build" / "images"
    made = {
        name: Context(name, given.wheels or work / "wheels", given.machine, given.python, given.helm)
        for name in given.names or NAMES
    }
    if given.contexts:
        for name, context in made.items():
            context.write(given.contexts / name)
            say(f"{name}: {given.contexts / name} for {context.dockerfile.relative_to(ROOT)}")
        return ""
    using = builder(given.builder, given.insecure)
    lines = []
    for name, context in made.items():
        began = time.monotonic()
        prefix = given.push or "idi"
        tag = f"{prefix}/{name}:{context.version}"
        folder = work / name
        context.write(folder)
        arguments = {**({"VERSION": context.version} if name in IDI else {}), **bases(given, name)}
        using.build(folder, context.dockerfile, tag, given.machine, arguments)
        image = f"{prefix}/{name}@{using.push(tag)}" if given.push else tag
        say(f"{name}: {tag}, {time.monotonic() - began:.0f} s")
        lines.append(f"{name}:\n  image: {image}\n")
    return "".join(lines)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python tools/images.py", description="Build the images of IDI and the stand-ins."
    )
    made.add_argument("names", nargs="*", metavar="NAME", help=f"which ({', '.join(NAMES)}); all without one")
    made.add_argument("--push", metavar="REGISTRY/PREFIX", help="push them there, and print them by digest")
    made.add_argument("--insecure", action="store_true", help="registries without TLS will do (buildah)")
    made.add_argument(
        "--builder", choices=("docker", "buildah"), default="", help="which; the one that works without it"
    )
    made.add_argument("--base", metavar="IMAGE", help="CPython as `python` on glibc 2.31 or newer")
    made.add_argument("--node-base", metavar="IMAGE", help="Node as `node`")
    made.add_argument("--go-builder", metavar="IMAGE", help="Go as `go`")
    made.add_argument("--python", default=PYTHON, metavar="3.N", help=f"the Python of the base ({PYTHON})")
    made.add_argument("--machine", default=machine(), choices=sorted(MACHINES), help="what it is to run on")
    made.add_argument(
        "--helm", type=Path, metavar="FILE", help="the program for control (images/control/helm)"
    )
    made.add_argument(
        "--wheels", type=Path, metavar="FOLDER", help="where fetched wheels are kept (build/images/wheels)"
    )
    made.add_argument(
        "--contexts", type=Path, metavar="FOLDER", help="only lay out what a builder takes, here"
    )
    return made


def machine() -> str:
    """This one's, by the name that Linux has for it."""
    return {"arm64": "aarch64", "AMD64": "x86_64"}.get(platform.machine(), platform.machine())


def say(text: str) -> None:
    print(f"images: {text}", file=sys.stderr, flush=True)


def _works(command: list[str]) -> bool:
    if not shutil.which(command[0]):
        return False
    try:
        return subprocess.run(command, capture_output=True, timeout=ASK_S).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _run(command: list[str], variables: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BUILD_S, env={**os.environ, **(variables or {})}
    )
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-SHOWN:])
        raise CannotPrepare(f"{' '.join(command[:2])} failed ({done.returncode}); its last lines:\n{said}")
    return done.stdout


def main(words: list[str]) -> int:
    made = parser()
    given = made.parse_args(words)
    if unknown := sorted(set(given.names) - set(NAMES)):
        made.error(f"no image {', '.join(unknown)}: there are {', '.join(NAMES)}")
    if given.helm and not given.helm.is_file():
        made.error(f"--helm: there is no file {given.helm}")
    try:
        print(run(given), end="")
    except (CannotPrepare, subprocess.TimeoutExpired) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
