"""`make images` with a Docker that only notes what it was asked: the machinery around a builder."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tools import images

DOCKER = """#!/bin/sh
echo "$*" >> {log}
case "$1" in
info) exit {daemon};;
build) exit {built};;
image) echo other/standin-go@sha256:bad; echo team/standin-go@sha256:beef;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    (tmp_path / "bin").mkdir()
    pretend(tmp_path)
    return tmp_path


def pretend(folder: Path, *, daemon: int = 0, built: int = 0) -> None:
    program = folder / "bin" / "docker"
    program.write_text(DOCKER.format(log=folder / "log", daemon=daemon, built=built))
    program.chmod(0o755)


def test_it_builds_pushes_and_prints_the_digest_of_its_own_repository(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["standin-go", "--push=team", "--go-builder=go@sha256:1", "--machine=aarch64"]
    assert images.main(words) == 0
    assert yaml.safe_load(capsys.readouterr().out) == {"standin-go": {"image": "team/standin-go@sha256:beef"}}
    _, build, push, _ = (docker / "log").read_text().splitlines()
    assert "--platform=linux/arm64" in build
    assert "--build-arg=BUILDER=go@sha256:1" in build
    assert push.startswith("push team/standin-go:")


def test_without_a_push_it_prints_the_name_here(docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert images.main(["standin-go"]) == 0
    [image] = [one["image"] for one in yaml.safe_load(capsys.readouterr().out).values()]
    assert image.startswith("idi/standin-go:")


def test_a_build_that_fails_says_so_and_prints_nothing_else(
    docker: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(docker, built=3)
    assert images.main(["standin-go"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "docker build failed (3)" in said.err


def test_a_docker_without_its_daemon_is_no_builder(docker: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretend(docker, daemon=1)
    assert images.main(["standin-go", "--builder=docker"]) == 1
    assert "docker works here: install" in capsys.readouterr().err
    assert (docker / "log").read_text() == "info\n"


def test_an_image_that_there_is_not_is_wrong_usage(docker: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        images.main(["nowhere"])
    assert ended.value.code == 2
