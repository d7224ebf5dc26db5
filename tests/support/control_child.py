"""A control of its own process, to be killed: `python control_child.py FOLDER HASH8 COUNT`.

It prints `begin`, brings COUNT instances of the small module and one part up, prints the world as one JSON
line when all are ready, and then waits for its end.
"""

import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from idi.parts.targets.local.process import ProcessSpec  # noqa: E402
from tests.support.targets import LocalStage  # noqa: E402


async def main(folder: str, hash8: str, count: str) -> None:
    stage = LocalStage(Path(folder), hash8)
    async with stage.control() as target:
        print("begin", flush=True)
        await target.adopt()
        log = stage.folder / "state" / "logs" / "vault.log"
        part = await target.run_part(
            ProcessSpec("vault", "part", ("/bin/sleep", "1000"), {}, stage.folder, log)
        )
        await target.ensure(stage.spec(), int(count))
        await stage.until(lambda: list(stage.told.states().values()) == ["ready"] * int(count))
        await asyncio.sleep(0.2)  # the records follow the facts
        pids = {one.id: [one.pid, one.sidecar_pid, one.ports["http"]] for one in stage.told.world.instances()}
        print(json.dumps({"part": part.pid, "instances": pids}), flush=True)
        await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
