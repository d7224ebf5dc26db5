"""Other people's verifiers accept the log and refuse it when a byte of it was changed.

The verifiers: Tessera's fsck (tlog-tiles) and Go's own checksum database code (notes, inclusion proofs).
"""

import random
import subprocess
from pathlib import Path

import pytest

from idi.parts.audit.export import export_proof, export_tiles
from idi.parts.store.interface import Actor, Step
from idi.parts.store.sqlite.check import open_log, prove
from tests.support.go_program import go_program
from tests.support.journals import Place
from tests.support.scale import scale

pytestmark = pytest.mark.requirement("S5")

SOURCE = Path(__file__).parent / "store_thirdparty"
SIZES = (1, 2, 255, 256, 257, 700)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go_program(SOURCE, tmp_path_factory.mktemp("verifier"))


def accepts(verifier: Path, *arguments: object) -> tuple[bool, str]:
    done = subprocess.run(
        [str(verifier), *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode == 0, done.stderr


async def grow(place: Place, size: int) -> str:
    """A journal of this many entries; its key."""
    async with place.open() as store:
        while store.state.size < size:
            change = await store.begin(Actor("peer", "ada", 1000), "up", {"file": "platform.yaml"})
            if store.state.size < size:
                steps = min(400, size - store.state.size)
                await store.intend(change, [Step("start", f"module{number}") for number in range(steps)])
        return store.state.verifier


@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", SIZES)
async def test_strangers_accept_the_log_and_every_proof(
    verifier: Path, tmp_path: Path, size: int, seeded: random.Random
) -> None:
    place = Place(tmp_path / "journal", tmp_path / "keys")
    key = await grow(place, size)
    with open_log(place.directory) as log:
        assert log.size == size
        export_tiles(tmp_path / "tiles", log.head, log.size, log.read_node, log.read_entry)
        ok, errors = accepts(verifier, "tiles", tmp_path / "tiles", key)
        assert ok, errors
        for index in {0, size - 1, *(seeded.randrange(size) for _ in range(scale(3, 40)))}:
            entry = log.read_entry(index)
            entry_path, proof_path = export_proof(tmp_path / "one", entry, prove(log, index).encode())
            ok, errors = accepts(verifier, "proof", proof_path, entry_path, key)
            assert ok, errors
            entry_path.write_bytes(entry.replace(b'"uid":1000', b'"uid":1001') + b" ")
            assert not accepts(verifier, "proof", proof_path, entry_path, key)[0]


@pytest.mark.timeout(900)
async def test_strangers_refuse_a_log_with_a_changed_byte(
    verifier: Path, tmp_path: Path, seeded: random.Random
) -> None:
    place = Place(tmp_path / "journal", tmp_path / "keys")
    key = await grow(place, 300)
    folder = tmp_path / "tiles"
    with open_log(place.directory) as log:
        export_tiles(folder, log.head, log.size, log.read_node, log.read_entry)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 6
    for path in files:
        honest = path.read_bytes()
        for _ in range(scale(1, 10)):
            at = seeded.randrange(len(honest))
            path.write_bytes(honest[:at] + bytes([honest[at] ^ 1 << seeded.randrange(8)]) + honest[at + 1 :])
            assert not accepts(verifier, "tiles", folder, key)[0], (path, at)
        path.write_bytes(honest)
    assert accepts(verifier, "tiles", folder, key)[0]
    async with Place(tmp_path / "other", tmp_path / "other keys").open() as store:
        assert not accepts(verifier, "tiles", folder, store.state.verifier)[0], "somebody else's key"
