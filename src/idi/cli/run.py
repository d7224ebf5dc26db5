"""`idi run`: one instance of a module as a process of the user's own terminal, in the mesh like every other.

The command stays what it would be without us: a child in the same process group, with the terminal, its Ctrl-C and its
Ctrl-Z. All that idi says goes to stderr. Nothing has to be undone here: control watches both processes and gives back
when one of them has ended, so it does not matter how.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from urllib.parse import quote

from idi.api.client import Answered, Client, NotRunning, Stream, Unanswered
from idi.api.errors import IdiError
from idi.cli.commands import Command
from idi.cli.failure import Failure, from_error, usage
from idi.cli.invocation import Invocation
from idi.cli.names import check_modules
from idi.cli.remote import only_here
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.screen import Line, Screen
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.words import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from types import FrameType
    from typing import Any, Self

    from idi.api.types import ChangeRequest, EnvironmentView, RunView

NOT_FOUND, NOT_EXECUTABLE, BY_SIGNAL = 127, 126, 128
"""As a shell says it."""
MARKER = "IDI_SEAT"
FOLLOW_S = 3600.0 * 24 * 365
PATIENT_S = 3.0
"""Not ready for this long: it is said what is waited for."""
AGAIN_S = 1.0
GIVE_BACK_S = 120.0


class Aside(Screen):
    """Everything on stderr: stdout belongs to the command."""

    def out(self, text: str | Line = "") -> None:
        if not self.as_json:
            self.err(text)

    def document(self, value: object, *, flush: bool = True) -> None:
        print(json.dumps(value, ensure_ascii=False, separators=(",", ":")), file=sys.stderr, flush=flush)


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("module", metavar="MODULE")
    parser.add_argument("command", nargs="*", metavar="-- CMD", help="what starts it, and its arguments")


def run(invocation: Invocation) -> int:
    module, command = invocation.options.module, list(invocation.options.command)
    if not command:
        raise usage("Missing: what to run.", "Write it after --, such as: idi run jede -- python jede.py")
    only_here(
        invocation,
        "No process of this machine joins it.",
        "Run it in an environment whose target is local: idi run takes --env.",
    )
    check_modules(invocation, [module])
    environment = with_our_path(os.environ)
    program = program_of(command[0], environment["PATH"])
    invocation.screen = screen = Aside(as_json=invocation.json)
    client = invocation.client()
    change(client, {"action": "run", "module": module}, screen, f"Running {module} here")
    instance = mine(client, module)
    environment |= given(client, module, instance)
    return Run(invocation, client, instance, [program, *command[1:]], environment).run()


def change(client: Client, request: ChangeRequest, screen: Screen, what: str) -> None:
    follower = Follower(screen, steps=False)
    with client.change(request) as stream:
        for item in stream:
            follower.take(item)
    if failure := follower.failure(what):
        raise failure


def with_our_path(own: os._Environ[str]) -> dict[str, str]:
    """The user's environment, with the interpreter's folder first on PATH as every module has it."""
    folder, path = os.path.dirname(sys.executable), own.get("PATH") or os.defpath
    found = {name: value for name, value in own.items() if name != MARKER}
    return {**found, "PATH": path if path.startswith(f"{folder}:") else f"{folder}:{path}"}


def program_of(name: str, path: str) -> str:
    from shutil import which

    if found := which(name, path=path):
        return found
    if os.path.exists(name) and "/" in name:
        raise Failure(f"{name} cannot be executed.", way_out=f"chmod +x {name}", code=NOT_EXECUTABLE)
    raise Failure(
        f"There is no command '{name}'.",
        way_out="What stands after -- is run as it is, without a shell; nothing was changed.",
        code=NOT_FOUND,
    )


def mine(client: Client, module: str) -> str:
    """The seat that was made: a module has one such at most."""
    for view in client.status()["modules"]:
        for one in view["instances"]:
            if view["name"] == module and one.get("by") and one["state"] != "stopping":
                return one["id"]
    raise Failure(f"The seat of {module} is gone again.", way_out="idi status says how it is.")


def given(client: Client, module: str, instance: str) -> dict[str, str]:
    view: EnvironmentView = client.ask(
        "GET", f"/v1/environment?module={quote(module)}&instance={quote(instance)}&reveal=1"
    )
    return {one["name"]: one["value"] for one in view["variables"] if one["value"] is not None}


class Run:
    """The command from its start to its end, and what is said meanwhile."""

    def __init__(
        self,
        invocation: Invocation,
        client: Client,
        instance: str,
        argv: list[str],
        environment: dict[str, str],
    ) -> None:
        self.invocation = invocation
        self.screen = invocation.screen
        self.client = client
        self.instance = instance
        self.module: str = invocation.options.module
        self.argv = argv
        self.environment = environment
        self.begun = time.monotonic()
        self.view: RunView | None = None
        self.stream: Stream | None = None
        self.ended = False
        self._said: set[str] = set()
        self._ready = False
        self._look_at = 0.0
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        terminal = settings_of_terminal()
        with Signals() as signals, Quiet() as quiet:
            try:
                child = subprocess.Popen(self.argv, env=self.environment)
            except OSError as error:
                code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
                raise Failure(f"{self.argv[0]} cannot start: {error.strerror}.", code=code) from error
            self._started(child.pid)
            self._child = child
            while child.poll() is None:
                if signals.stops:
                    self._stop(child, signals)
                self._attend(signals, 0.5 if not self._ready else None)
            self._child = None
            put_back(terminal)
            self._given_back(signals, quiet)
        code = child.returncode
        code = code if code >= 0 else BY_SIGNAL - code
        if self.screen.as_json:
            self.screen.document({"type": "ended", "instance": self.instance, "exit": code})
        return code

    # --- what control is told, and tells

    def _started(self, pid: int) -> None:
        try:
            self.client.ask("PUT", f"/v1/runs/{self.instance}", {"pid": pid})
        except Answered as error:
            self._say(f"{error.message}", "yellow")
        except (NotRunning, Unanswered):
            self._lost()

    def _attend(self, signals: Signals, timeout: float | None) -> None:
        """Wait for news, a signal, or the command's end."""
        if self.stream is None and not self.ended:
            self._connect()
        if self.stream is None:
            signals.wait([], AGAIN_S)
            return
        ready = signals.wait([self.stream], timeout)
        if ready:
            try:
                for view in self.stream.ready():
                    self._take(view)
            except NotRunning:
                self._disconnect()
                self._lost()
                return
            if self.stream.ended:
                self._disconnect()
                if not self.ended:
                    self._lost()
        self._impatient()

    def _connect(self) -> None:
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + AGAIN_S
        try:
            if self._child is not None:  # control may have been away when it was told first
                self.client.ask("PUT", f"/v1/runs/{self.instance}", {"pid": self._child.pid})
            self.stream = self.invocation.client().stream("GET", f"/v1/runs/{self.instance}")
            for view in self.stream.ready():  # what came with the headers
                self._take(view)
        except IdiError:
            self._disconnect()

    def _disconnect(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _take(self, item: Any) -> None:
        if "module" not in item:  # a problem on the last line
            return
        view: RunView = item
        if self.screen.as_json:
            self.screen.document({"type": "run", **view})
        before, self.view, self.ended = self.view, view, view["ended"]
        if view["state"] == "ready" and view["standing"] and not self._ready:
            self._ready = True
            self._say(f"{self.instance} is in the mesh and stands for one of {self.module}'s own.", "green")
        elif before and before["state"] == "ready" and view["state"] == "unready" and not view["over"]:
            self._say(f"{self.instance} serves nobody at the moment: {plain(view['reason'])}.", "yellow")
        elif before and before["state"] == "unready" and view["state"] == "ready":
            self._say(f"{self.instance} serves again.", "green")
        if view["down"]:
            self._once("down", "The platform goes down, and what runs here with it.", "yellow")

    def _impatient(self) -> None:
        view = self.view
        late = time.monotonic() - self.begun > PATIENT_S
        if view and late and view["state"] == "starting" and view["reason"] and not self._ready:
            ours = "ours is away meanwhile" if view["standing"] else "ours goes on serving"
            self._once("late", f"{self.instance} is not ready: {plain(view['reason'])}; {ours}.", "yellow")

    def _lost(self) -> None:
        if not (self.view and self.view["down"]):
            self._once(
                "lost", "Control does not answer; traffic goes on, and so does what runs here.", "yellow"
            )

    # --- the end

    def _stop(self, child: subprocess.Popen[bytes], signals: Signals) -> None:
        """Somebody ends idi itself: in that order nothing is lost, ours comes back before theirs goes."""
        number, signals.stops = signals.last, 0
        try:
            change(self.client, {"action": "give-back", "module": self.module}, self.screen, "Giving back")
        except (Failure, IdiError) as error:
            failure = error if isinstance(error, Failure) else from_error(error)
            self._say(f"{failure.what} {failure.why}".strip(), "yellow")
            child.send_signal(number)

    def _given_back(self, signals: Signals, quiet: Quiet) -> None:
        """Wait until it is as before; Ctrl-C leaves that to control."""
        end = time.monotonic() + GIVE_BACK_S
        signals.stops = 0
        self._said.add("late")
        quiet.interrupts = 0
        while not self.ended and time.monotonic() < end and not signals.stops and not quiet.interrupts:
            self._attend(signals, 0.5)
            if self.stream is None and "lost" in self._said:
                break
        view = self.view
        self._disconnect()
        if view and view["down"]:
            return
        if not self.ended:
            self._say("Control gives it back by itself; idi status shows it.", "yellow")
        elif view and view["ready"]:
            ours = "1 instance" if view["ready"] == 1 else f"{view['ready']} instances"
            self._say(f"Given back: {ours} of {self.module} ready.", "green")
        else:
            line = self.invocation.command_line("status")
            self._say(f"Given back, but no instance of {self.module} is ready: {line} says why.", "yellow")

    def _once(self, what: str, text: str, style: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._say(text, style)

    def _say(self, text: str, style: str) -> None:
        if not self.screen.as_json:
            self.screen.warn([("idi: ", "dim"), (text, style)], indent=5)


class Quiet:
    """Ctrl-C and Ctrl-\\ are the command's, which gets them itself; handlers, since what is ignored it would ignore,
    too. Ctrl-Z stops both, and its end wakes us."""

    def __init__(self) -> None:
        self.interrupts = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGQUIT):
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._interrupt)
        self._before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        self.interrupts += 1


def settings_of_terminal() -> list[Any] | None:
    try:
        import termios

        return termios.tcgetattr(0) if os.isatty(0) else None
    except (ImportError, OSError, termios.error):
        return None


def put_back(settings: list[Any] | None) -> None:
    """A debugger that was killed leaves the terminal as it wanted it."""
    if settings is None:
        return
    import termios

    try:
        if os.tcgetpgrp(0) == os.getpgrp():
            termios.tcsetattr(0, termios.TCSADRAIN, settings)
    except (OSError, termios.error):
        pass


COMMANDS = {
    "run": Command(
        run,
        arguments,
        after="command",
        examples=(
            "idi run jede -- python -m pdb jede.py",
            "idi run cam -- node --inspect-brk server.js",
            "idi run vtl -- gdb --args ./vtl -v",
        ),
        about="Run one instance of a module yourself, under a debugger if you like, inside the platform: with its\n"
        "environment on top of your own, its sidecar, its calls and its events. One of the platform's own goes when\n"
        "yours is ready, and comes back when your command ends. It runs in the folder where you are, in your\n"
        "terminal; what idi says is on stderr (with --json as JSON lines there). The exit code is the command's own.",
    )
}
