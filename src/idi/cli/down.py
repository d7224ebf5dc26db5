"""`idi down`: stop everything and wait until nothing is left, control included."""

from __future__ import annotations

import os
import select
import time
from contextlib import nullcontext

from idi.api.client import Client, NotRunning
from idi.api.errors import IdiError
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, INTERRUPTED, Failure
from idi.cli.invocation import Invocation, no_declaration
from idi.cli.left import left_over
from idi.cli.remote import is_remote
from idi.cli.terminal.live import Live
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.pump import follow
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.words import took

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.cli.terminal.view import Board

CONTROL_ENDS_S = 20.0


def run(invocation: Invocation) -> int:
    screen = invocation.screen
    with Signals() as signals:
        if is_remote(invocation):
            from idi.cli.up_cluster import down
            from idi.cli.validate import checked

            return down(invocation, checked(invocation, invocation.text()).platform, signals)
        client = invocation.client()
        try:
            pid = client.status()["control"]["pid"]
        except NotRunning:
            if not left_over(invocation):
                if invocation.json:
                    screen.document({"type": "done", "ok": True})
                there = os.path.exists(invocation.file)
                what = (
                    f"{invocation.where} is not running"
                    if there
                    else no_declaration(invocation.file, DONE).what[:-1]
                )
                screen.out(f"{what}: nothing to stop.")
                return DONE
            from idi.cli.launch import Ports, launch

            screen.err("Control is not running, but what it started is: starting it to stop that.")
            pid = launch(invocation, signals, Ports(invocation, left=True)).status["control"]["pid"]
        with Live(screen, signals) if screen.live else nullcontext() as live:
            return take_down(invocation, client, signals, Follower(screen, live, reasons=False), pid)


def take_down(
    invocation: Invocation,
    client: Client,
    signals: Signals,
    follower: Follower,
    pid: int,
    board: Board | None = None,
) -> int:
    """Ask for it, show it, and wait for control's own end."""
    screen = invocation.screen
    end = End(pid)
    try:
        with client.change({"action": "down"}) as stream:
            if board:
                with client.watch() as watch:
                    finished = follow(stream, follower, signals, board, watch)
            else:
                finished = follow(stream, follower, signals)
        if not finished:
            follower.say([("The stopping goes on by itself; ", ""), ("idi status shows it.", "")])
            return INTERRUPTED
        failure = follower.failure("Stopping")
        if failure:
            raise failure
        if not end.wait(CONTROL_ENDS_S):
            raise Failure(
                f"Everything is stopped, but control (pid {pid}) has not ended after {CONTROL_ENDS_S:.0f} s.",
                way_out=f"End it: kill {pid}",
                code=FAILED,
            )
    finally:
        end.close()
    if follower.live:
        follower.live.clear()
    if not screen.as_json:
        follower.say([("Stopped", "green"), (f" in {took(follower.seconds)}; nothing is left running.", "")])
    return DONE


def stop_quietly(client: Client, pid: int) -> None:
    """The same without a word."""
    end = End(pid)
    try:
        with client.change({"action": "down"}) as stream:
            for _ in stream:
                pass
        end.wait(CONTROL_ENDS_S)
    except IdiError:
        pass  # what failed before is what the user has to read
    finally:
        end.close()


class End:
    """Waits for the end of a process that is not our child; made while it surely lives."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._handle = -1
        try:
            self._handle = os.pidfd_open(pid)
        except (AttributeError, OSError):
            pass  # no pidfd on this system: ask again and again instead

    def wait(self, timeout: float) -> bool:
        if self._handle >= 0:
            return bool(select.select([self._handle], [], [], timeout)[0])
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                os.kill(self._pid, 0)
            except ProcessLookupError:
                return True
            except PermissionError:
                return True  # the number belongs to somebody else by now
            time.sleep(0.02)
        return False

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


COMMANDS = {
    "down": Command(
        run,
        examples=("idi down",),
        about="Stop everything: the gateway first, then the modules (each within its grace period), then\n"
        "control itself. Where nothing runs it says so; that is no failure.",
    )
}
