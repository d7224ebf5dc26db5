"""From start to SIGTERM, as real processes, and what importing it costs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from idi.module import Limits, Module, testing
from tests.support.platform import ROOT, free_port, until

pytestmark = pytest.mark.requirement("D1")

APP = """
import asyncio, os
from dataclasses import dataclass
from idi.module import Limits, Module, Request

@dataclass
class Config:
    tip: int = 0

app = Module(Config, name="orders", limits=Limits(
    grace_s=float(os.environ.get("GRACE", 8)), linger_s=float(os.environ.get("LINGER", 0.2))
))

@app.lifespan
async def around():
    print("enter", flush=True)
    while "GATE" in os.environ and not os.path.exists("gate-is-open"):
        await asyncio.sleep(0.02)
    yield
    print("leave", flush=True)

@app.get("/slow")
async def slow(request: Request) -> object:
    print("asked", flush=True)
    await asyncio.sleep(float(request.query["s"]))
    return "done"

if __name__ == "__main__":
    app.run()
"""


class Process:
    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        self.port = free_port()
        self.popen = subprocess.Popen(
            [sys.executable, "app.py"],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "PORT": str(self.port),
                "PYTHONPATH": str(ROOT / "src"),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.lines.append(line.rstrip("\n"))

    def get(self, path: str) -> int:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=10).status_code
        except httpx.ConnectError:
            return 0
        except httpx.RemoteProtocolError:
            return -1

    def end(self) -> int:
        code = self.popen.wait(timeout=20)
        self._reader.join(timeout=5)
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    begun: list[Process] = []

    def run(**environment: str) -> Process:
        begun.append(Process(tmp_path, environment))
        return begun[-1]

    yield run
    for one in begun:
        if one.popen.poll() is None:
            one.popen.kill()
        one.end()


def test_readiness_says_the_truth_and_what_is_under_way_is_finished(start: Callable[..., Process]) -> None:
    one = start(GATE="1", LINGER="2")
    until(lambda: one.get("/ready") == 503)
    assert one.get("/slow?s=0") == 503, "it is starting"
    (one.folder / "gate-is-open").touch()
    until(lambda: one.get("/ready") == 200)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(one.get("/slow?s=4")))
    asking.start()
    until(lambda: "asked" in one.lines)
    one.popen.send_signal(signal.SIGTERM)
    until(lambda: one.get("/ready") == 503)
    assert one.get("/slow?s=0") == 200, "it was on its way"
    until(lambda: one.get("/ready") == 0)
    assert one.end() == 0
    asking.join()
    assert answers == [200]
    assert one.lines[-1] == "leave"


def test_the_grace_has_an_end(start: Callable[..., Process]) -> None:
    one = start(GRACE="0.5")
    until(lambda: one.get("/ready") == 200)
    answers: list[int] = []
    asking = threading.Thread(target=lambda: answers.append(one.get("/slow?s=20")))
    asking.start()
    until(lambda: "asked" in one.lines)
    one.popen.send_signal(signal.SIGTERM)
    assert one.end() == 0
    asking.join()
    assert answers == [-1]
    assert one.lines[-2:] == ["warning: the grace is over: 1 requests are cut", "leave"]


def test_it_ends_while_it_starts(start: Callable[..., Process]) -> None:
    one = start(GATE="1")
    until(lambda: "enter" in one.lines)
    one.popen.send_signal(signal.SIGTERM)
    assert one.end() == 0


def test_ctrl_c_ends_it_as_well(start: Callable[..., Process]) -> None:
    one = start()
    until(lambda: one.get("/ready") == 200)
    one.popen.send_signal(signal.SIGINT)
    assert one.end() == 0
    assert not [line for line in one.lines if "Traceback" in line]


def test_what_is_wrong_with_the_environment_is_told_at_once(start: Callable[..., Process]) -> None:
    one = start(PORT="x", TIP="many", LOG_LEVEL="loud")
    assert one.end() == 2
    assert one.lines == [
        "orders cannot start, 3 mistakes in its environment:",
        "  LOG_LEVEL must be one of debug, info, warning, error, critical, not 'loud'.",
        "  PORT must be a port, not 'x': the platform sets it; by hand: PORT=8000 python app.py.",
        "  TIP must be a whole number, not 'many'.",
    ]


def test_a_port_that_is_taken(start: Callable[..., Process]) -> None:
    one = start()
    until(lambda: one.get("/ready") == 200)
    other = start(PORT=str(one.port))
    assert other.end() == 2
    assert other.lines[-1] == f"  127.0.0.1:{one.port} cannot be listened on: Address already in use."


def test_log_lines_are_json_in_a_platform(start: Callable[..., Process]) -> None:
    one = start(IDI_MODULE="orders")
    until(lambda: one.get("/ready") == 200)
    [line] = until(lambda: [json.loads(line) for line in one.lines if line.startswith("{")])
    assert (line["level"], line["msg"], line["port"]) == ("info", "ready", one.port)


async def test_a_check_says_whether_it_is_ready() -> None:
    app = Module(name="orders", limits=Limits(linger_s=0.0))
    well: list[object] = [ValueError("no connection"), False, True]

    @app.check
    async def database() -> object:
        found = well.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async with testing.client(app) as client:
        replies = [await client.get("/ready") for _ in range(3)]
    assert [reply.status for reply in replies] == [503, 503, 200]
    assert replies[0].json()["detail"] == "orders is not ready: database: no connection."
    assert replies[1].json()["detail"] == "orders is not ready: database."


def test_it_imports_nothing_of_the_platform_and_little_else() -> None:
    code = """
        import sys, time
        import aiohttp.web
        before, begun = set(sys.modules), time.perf_counter()
        import idi.module
        print(round(1000 * (time.perf_counter() - begun)))
        print(*sorted({name for name in sys.modules if name.startswith("idi.")}))
        print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    took_ms, own, others = done.stdout.splitlines()
    assert all(name.startswith("idi.module") for name in own.split())
    assert others == "idi"
    print(f"import idi.module over aiohttp: {took_ms} ms")
