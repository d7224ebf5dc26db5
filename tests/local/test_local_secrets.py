"""Secrets at the local target, with real processes: given at a start, waited for, and gone with their instance."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from idi.declaration.types import Readiness
from idi.parts.targets.interface import Unsupplied
from idi.parts.targets.local.secrets import SecretFiles, memory_folder
from idi.world.events import InstanceFailed
from idi.world.types import InstanceId, RevisionSpec
from tests.support.targets import LocalStage, hash8_of, local_stage, ready

pytestmark = pytest.mark.requirement("S1", "T4")

ONE = InstanceId("jede-1")
UNSET = "secret a is not set; idi secrets set a"


@dataclass
class Store:
    values: dict[str, bytes] = field(default_factory=lambda: {"a": b"geheim", "b": b"\xff"})
    error: Unsupplied | None = None
    asked: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def supply(self, _: RevisionSpec, paths: Collection[str]) -> Mapping[str, bytes]:
        self.asked += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return {path: self.values[path] for path in paths}


@pytest.fixture
def store() -> Store:
    made = Store()
    made.go.set()
    return made


@pytest.fixture
async def stage(request: pytest.FixtureRequest, tmp_path: Path, store: Store) -> AsyncIterator[LocalStage]:
    async with local_stage(tmp_path / "platform", hash8_of(request.node.nodeid)) as made:
        made.options["supply"] = store.supply
        yield made


def spec_of(stage: LocalStage, **more: object) -> RevisionSpec:
    return stage.spec(environment={"PASSWORD": "${secret.a}", "KEY": "${secret_file.b}"}, **more)


def environment(stage: LocalStage) -> dict[str, str]:
    pid = stage.told.instances()[ONE].pid
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def records(stage: LocalStage) -> str:
    return "".join(path.read_text() for path in (stage.folder / "state" / "seats").glob("*"))


def content(path: str) -> bytes:
    return Path(path).read_bytes()


def exists(path: Path) -> bool:
    return path.exists()


async def test_a_process_has_them_and_no_record_does(stage: LocalStage, store: Store) -> None:
    folder = memory_folder(stage.hash8, {})
    assert folder is not None
    async with stage.control() as target:
        spec = spec_of(stage)
        await target.ensure(spec, 1)
        await stage.until(ready(stage))
        found = environment(stage)
        assert (found["PASSWORD"], content(found["KEY"])) == ("geheim", b"\xff")
        assert found["KEY"].startswith(f"{folder}/jede-1/")
        assert "geheim" not in records(stage)
        # What starts again asks again.
        store.values["a"] = b"other"
        stage.kill("jede-1")
        await stage.until(lambda: store.asked == 2)
        await stage.until(ready(stage))
        assert environment(stage)["PASSWORD"] == "other"
        await target.remove(spec.module, spec.revision)
    assert not exists(folder)


async def test_one_that_is_not_set_fails_at_once_and_stays(stage: LocalStage, store: Store) -> None:
    store.error = Unsupplied(UNSET, retryable=False)
    async with stage.control() as target:
        await target.ensure(spec_of(stage), 1)
        await stage.until(lambda: stage.told.of(InstanceFailed))
        assert stage.told.of(InstanceFailed)[0].reason == UNSET
        assert stage.told.states() == {"jede-1": "failed"}
        store.error = None
        await stage.until(ready(stage))
        assert environment(stage)["PASSWORD"] == "geheim"


async def test_a_store_that_is_away_is_tried_again(stage: LocalStage, store: Store) -> None:
    store.error = Unsupplied("its secrets cannot be had: OpenBao is sealed")
    async with stage.control() as target:
        await target.ensure(spec_of(stage), 1)
        await stage.until(lambda: store.asked > 4)
        assert "OpenBao is sealed" in stage.told.instances()[ONE].reason
        store.error = None
        await stage.until(ready(stage))


async def test_while_some_wait_for_their_secrets_others_start(stage: LocalStage, store: Store) -> None:
    """More of them than processes may be starting at once."""
    store.go.clear()
    async with stage.control() as target:
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(target.ensure(spec_of(stage, module=f"wait{number}"), 1))
            await target.ensure(stage.spec(module="cam"), 1)
            await stage.until(lambda: stage.told.states().get("cam-1") == "ready")
            assert store.asked == 3
            store.go.set()
        await stage.until(lambda: set(stage.told.states().values()) == {"ready"})
        assert len(stage.told.instances()) == 4


async def test_the_command_that_asks_has_them_too_also_after_an_adoption(
    stage: LocalStage, store: Store
) -> None:
    probe = Readiness(http="", command='test "$PASSWORD" = geheim', every_s=0.1)
    async with stage.control() as target:
        await target.ensure(spec_of(stage, readiness=probe), 1)
        await stage.until(ready(stage))
        folder = SecretFiles(memory_folder(stage.hash8, {}))
        folder.place(InstanceId("jede-9"), {"b": b"left over"})
    left = memory_folder(stage.hash8, {})
    assert left is not None
    asked = store.asked
    async with stage.control() as target:
        await target.adopt()
        assert not exists(left / "jede-9")
        assert exists(left / "jede-1")
        await stage.until(lambda: store.asked > asked)
        await stage.until(ready(stage))
