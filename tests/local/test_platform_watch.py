"""`idi up --watch` on a real platform: what is saved is what runs, and nothing fails meanwhile."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.command.terminal import Terminal
from tests.support.platform import Platform, platform, until
from tests.support.steady import meanwhile, nothing_failed, report, under_load

HELLO = """
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
SAID = b"first"
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", str(len(SAID))); self.end_headers()
        self.wfile.write(SAID)
    def log_message(self, *a): pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
DECLARATION = """
platform: saved
gateway:
  clients:
    pilot: {scopes: [one.call, two.call]}
defaults: {readiness: {http: /ready, every: 200ms, deadline: 20s}, grace: 2s}
modules:
  one: {run: exec python one/hello.py, watch: [one, "shared/*.py"]}
  two: {run: exec python two/hello.py, watch: [two]}
  all: {run: exec python one/hello.py}
"""
FILES = {"one/hello.py": HELLO, "two/hello.py": HELLO, "shared/names.py": "", ".gitignore": "*.log\n"}
pytestmark = [pytest.mark.timeout(300), pytest.mark.requirement("D1")]


class Lines:
    """What `idi up --watch` says without a terminal."""

    def __init__(self, shop: Platform) -> None:
        self.process = shop.start("up", "--watch", *shop.ports)
        self.seen: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen.append(line.rstrip())

    def until(self, pattern: str, after: int = 0) -> int:
        """The number of lines by then."""

        def found() -> int:
            return next(
                (n for n, line in enumerate(self.seen, 1) if n > after and re.search(pattern, line)), 0
            )

        return until(found, 40.0, lambda: f"{pattern} in {self.seen}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(60)
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        return code


@contextmanager
def watching(shop: Platform) -> Iterator[Lines]:
    lines = Lines(shop)
    try:
        lines.until("ready in")
        yield lines
    finally:
        if lines.process.poll() is None:
            lines.end()


@pytest.fixture(scope="module")
def shop() -> Iterator[Platform]:
    with platform(DECLARATION, FILES) as one:
        subprocess.run(["git", "init", "-q"], cwd=one.folder, check=True)
        yield one


@pytest.fixture(scope="module")
def lines(shop: Platform) -> Iterator[Lines]:
    with watching(shop) as found:
        yield found


def revisions(shop: Platform) -> dict[str, str]:
    return {m["name"]: m["instances"][0]["revision"] for m in shop.status()["modules"]}


def says(shop: Platform, module: str, token: str) -> str:
    answer = shop.ask(f"/v1/{module}/", token)
    assert answer.status_code == 200, answer.text
    return answer.text


def save(path: Path, text: str) -> None:
    """As careful editors do: beside it, then renamed, with leftovers. Not quicker than a person after a restart."""
    time.sleep(1.2)
    path.with_name(f"{path.name}~").write_text(path.read_text())
    path.with_name(f".{path.name}.swp").write_text(text)
    path.with_name(f"{path.name}.tmp").write_text(text)
    path.with_name(f"{path.name}.tmp").rename(path)
    path.with_name(f".{path.name}.swp").unlink()


def test_a_saved_file_restarts_its_modules_and_no_other(shop: Platform, lines: Lines) -> None:
    token, before, at = shop.token(), revisions(shop), len(lines.seen)
    save(shop.folder / "two" / "hello.py", HELLO.replace("first", "second"))
    at = lines.until("Restarting two, all: done", at)
    assert says(shop, "two", token) == "second"
    after = revisions(shop)
    assert {name for name in before if before[name] != after[name]} == {"two", "all"}
    (shop.folder / "shared" / "names.py").write_text("NAME = 1\n")
    at = lines.until("Restarting one, all: done", at)
    assert revisions(shop)["two"] == after["two"]
    saved = [line for line in lines.seen if " saved: " in line]
    assert len(saved) == 2, f"what comes together is taken together: {saved}"


def test_what_is_nobodys_source_restarts_nobody(shop: Platform, lines: Lines) -> None:
    before, at = revisions(shop), len(lines.seen)
    for name in ("some.log", ".hidden/file.py", "node_modules/a.js", "__pycache__/x.pyc", "hello.py.swp"):
        path = shop.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (shop.folder / "new").mkdir()
    (shop.folder / "new" / "deeper.py").write_text("x = 1\n")  # in a folder that came later
    lines.until("Restarting all: done", at)
    after = revisions(shop)
    assert {name for name in before if before[name] != after[name]} == {"all"}
    assert not [
        line for line in lines.seen[at:] if ".log" in line or "hidden" in line or "node_modules" in line
    ]


async def test_nothing_fails_while_it_is_saved(shop: Platform, lines: Lines) -> None:
    token = await meanwhile(shop.token, "--client", "pilot", "--ttl", "1h")
    async with under_load(shop, "/v1/one/", [token], 100.0) as act:
        for number in range(3):
            at = len(lines.seen)
            text = HELLO.replace("first", f"number {number}")
            await meanwhile(save, shop.folder / "one" / "hello.py", text)
            await meanwhile(lines.until, "Restarting one, all: done", at)
    report("saved three times", act)
    nothing_failed(act)


def test_one_that_cannot_start_says_why_and_the_former_goes_on(shop: Platform, lines: Lines) -> None:
    token, at = shop.token(), len(lines.seen)
    save(shop.folder / "two" / "hello.py", HELLO.replace("import os", "import os; import no_such_module"))
    at = lines.until("The former version goes on serving", at)
    assert any("No module named 'no_such_module'" in line for line in lines.seen)
    assert says(shop, "two", token) == "second"
    save(shop.folder / "two" / "hello.py", HELLO.replace("first", "third"))
    lines.until("Restarting two, all: done", at)
    assert says(shop, "two", token) == "third"
    shop.wait_ready()


def test_a_saved_declaration_is_applied_or_refused_with_its_place(shop: Platform, lines: Lines) -> None:
    before, at = shop.pids(), len(lines.seen)
    shop.write(DECLARATION.replace("watch: [two]", "watch: [two], instance: 2"))
    at = lines.until(r"platform\.yaml:\d+:\d+: ", at)
    lines.until("nothing was changed", at - 1)
    assert shop.pids() == before
    shop.write(DECLARATION.replace("watch: [two]", "watch: [three], instances: 2"))
    at = lines.until(r"Applying platform\.yaml: done", at)
    assert shop.module("two")["ready"] == 2
    (shop.folder / "three").mkdir()
    (shop.folder / "three" / "x.py").write_text("x = 1\n")
    lines.until("Restarting two, all: done", at)


def test_what_a_module_writes_itself_is_left_alone_in_the_end(shop: Platform, lines: Lines) -> None:
    at = len(lines.seen)
    writing = 'open("one/written-by-itself", "w").close()\n' + HELLO
    save(shop.folder / "one" / "hello.py", writing)
    at = lines.until("written-by-itself is written right after each restart", at)
    save(shop.folder / "one" / "hello.py", HELLO)
    lines.until("one/hello.py saved: one, all", at)
    lines.until("Restarting one, all: done", at)


def test_beside_one_that_runs_it_only_watches(shop: Platform, lines: Lines) -> None:
    with Terminal(
        shop.command("up", "--watch"), env={**shop.environment(), "COLUMNS": ""}, cwd=shop.folder
    ) as terminal:
        terminal.until("Watching for saved files")
        terminal.send("\x03")
        assert terminal.ends() == 130
    assert lines.process.poll() is None
    assert shop.ready()
    assert shop.run("up", "--watch", "--detach", check=False).returncode == 2


def test_ctrl_c_ends_everything(shop: Platform, lines: Lines) -> None:
    assert lines.end() == 130
    assert shop.run("status", check=False).returncode == 3
    assert not shop.processes()


def test_in_a_terminal_it_is_said_above_the_table(shop: Platform) -> None:
    shop.write(DECLARATION)
    with Terminal(
        shop.command("up", "--watch", *shop.ports), env={**shop.environment(), "COLUMNS": ""}, cwd=shop.folder
    ) as terminal:
        terminal.until("3 of 3 ready", 60)
        save(shop.folder / "two" / "hello.py", HELLO.replace("first", "fourth"))
        terminal.until(": done in", 40)
        assert "two/hello.py saved: two, all" in terminal.text
        assert terminal.text.count("MODULE") == 1
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.ends(60) == 130
