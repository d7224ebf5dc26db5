"""Releases of an environment from its declaration alone; tests/cluster/test_by_hand.py holds them against a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from idi.api.releases import releases
from idi.cli.main import main
from idi.declaration.load import Loaded, load

pytestmark = pytest.mark.requirement("K1", "C1")

DIGEST = "sha256:" + "0123456789abcdef" * 4
TEXT = f"""\
platform: shop
modules:
  jede:
    run: jede
    image: a/jede@{DIGEST}
    calls: [cam]
    secrets: {{WORD: jede/word}}
  cam: {{run: cam, image: a/cam@{DIGEST}, publishes: [cam.changed]}}
  vtl: {{run: vtl, image: a/vtl@{DIGEST}}}
environments:
  staging:
    target:
      kubernetes:
        context: the cluster
        images: {{control: a/c@{DIGEST}, sidecar: a/s@{DIGEST}, relay: a/r@{DIGEST}}}
        seal: {{secret: ours, previous: former.key}}
"""


def test_each_is_there_and_says_what_it_waits_for() -> None:
    loaded = load(TEXT, file="platform.yaml", environment="staging")
    assert isinstance(loaded, Loaded)
    found = {one.name: one for one in releases(loaded.platform)}
    assert list(found) == ["idi", "bus", "relay", "jede", "cam", "vtl"]
    assert [name for name, one in found.items() if one.waits] == ["bus", "relay", "jede", "cam"]
    assert {one.chart.name for one in found.values()} == {"platform", "module"}
    assert found["idi"].values["control"]["sealKey"] == {
        "secret": "ours",
        "key": "seal.key",
        "previous": "former.key",
    }
    assert found["cam"].values["networkPolicy"]["callers"] == ["jede"]
    assert found["jede"].values["around"]


def test_a_person_gets_files_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "platform.yaml").write_text(TEXT)
    words = ["--file", str(tmp_path / "platform.yaml"), "--env"]
    folder = tmp_path / "by hand"
    assert main(["render", "helm", str(folder), *words, "staging"]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert len(lines) == 7
    assert lines[1].startswith("helm --kube-context 'the cluster' install idi ")
    assert lines[1].endswith(f"-n shop-staging -f '{folder}/idi.yaml'")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["namespace.yaml", *(f"{name}.yaml" for name in ("idi", "bus", "relay", "jede", "cam", "vtl"))]
    )
    assert "bus, relay, jede, cam wait for Secrets" in " ".join(said.err.split())
    assert main(["render", "helm", str(folder), *words, "dev"]) == 2
    assert "is not on a cluster" in capsys.readouterr().err
