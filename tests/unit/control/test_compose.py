"""Control that is told to end in the middle of a change cuts the change off before the parts that it works on."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest

from idi.api.paths import make_private, paths_for
from idi.control.ahead import Ahead
from idi.control.compose import compose
from idi.control.settings import Settings
from idi.parts.store.memory import MemoryStore
from idi.parts.targets.local.target import LocalTarget


@pytest.mark.requirement("S5")
async def test_changes_end_before_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what is left of a change fails on a target that was left, and is recorded as our bug."""
    order: list[str] = []
    leave = LocalTarget.__aexit__

    async def leaving(self: LocalTarget, *error: object) -> None:
        order.append("target")
        await leave(self, *error)  # type: ignore[arg-type]

    monkeypatch.setattr(LocalTarget, "__aexit__", leaving)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="idi-") as runtime:  # short: sockets are in it
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        paths = paths_for(tmp_path / "platform.yaml", "dev")
        for folder in (paths.state.parent, paths.state, paths.runtime, paths.keys):
            make_private(folder)

        async def change() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                order.append("change")

        settings, store = Settings(paths, "dev", str(tmp_path)), MemoryStore()
        async with Ahead(settings, store) as ahead, compose(settings, store, ahead) as desk:
            desk.reconciler.tasks.create_task(change())
            await asyncio.sleep(0)
    assert order == ["change", "target"]
