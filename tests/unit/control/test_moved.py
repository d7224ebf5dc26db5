"""A folder that was moved says where its keys are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from idi.api.paths import Paths, paths_for
from idi.control.moved import check
from idi.parts.errors import Refused


def shop(folder: Path) -> Paths:
    folder.mkdir(exist_ok=True)
    paths = paths_for(folder / "platform.yaml", "dev")
    paths.state.mkdir(parents=True, exist_ok=True)
    return paths


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "keys"))


def test_it_is_refused_until_the_keys_have_followed(tmp_path: Path) -> None:
    before = shop(tmp_path / "shop")
    check(before)
    before.keys.mkdir(parents=True)
    (before.keys / "seal.key").write_bytes(b"x")
    check(before)  # where it always was

    (tmp_path / "shop").rename(tmp_path / "store")
    after = shop(tmp_path / "store")
    after.keys.mkdir()
    for _ in range(2):
        with pytest.raises(Refused, match=rf"moved or copied: .* {before.keys}") as refused:
            check(after)
        assert f"mv {before.keys} {after.keys} " in refused.value.way_out
    shutil.move(before.keys, after.keys)
    check(after)
    assert (after.keys / "seal.key").exists()
    check(after)


def test_without_keys_there_is_nothing_to_follow(tmp_path: Path) -> None:
    check(shop(tmp_path / "shop"))
    (tmp_path / "shop").rename(tmp_path / "store")
    check(shop(tmp_path / "store"))
