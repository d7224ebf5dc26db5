"""`idi up`: start everything and stay with it, or bring what runs to what is declared now.

Whoever started control is in charge of it: in the foreground its end (Ctrl-C, SIGTERM, a closed terminal)
is the platform's end. A second `up` only hands in the declaration and goes.
"""

from __future__ import annotations

from contextlib import nullcontext

from idi.api.client import Answered, Client, NotRunning
from idi.cli.commands import Command
from idi.cli.down import End, stop_quietly, take_down
from idi.cli.failure import DONE, INTERRUPTED, Failure, from_error, usage
from idi.cli.invocation import Invocation
from idi.cli.left import left_over
from idi.cli.once import hint
from idi.cli.parser import port
from idi.cli.remote import is_remote
from idi.cli.terminal.live import Live
from idi.cli.terminal.narrate import Narrator
from idi.cli.terminal.progress import Follower
from idi.cli.terminal.pump import follow, pump
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.view import STOPPING, Board
from idi.cli.terminal.words import took
from idi.cli.validate import doable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from contextlib import AbstractContextManager

    from idi.api.types import StatusView, UpRequest
    from idi.cli.reload import Reload
    from idi.cli.terminal.pump import Source, Taker
    from idi.declaration.types import Platform


def arguments(parser: ArgumentParser) -> None:
    from argparse import SUPPRESS

    parser.add_argument(
        "--detach", action="store_true", help="return when everything is ready, and leave it running"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="restart modules whose files are saved, apply a saved declaration",
    )
    parser.add_argument(
        "--gateway-port", type=port, metavar="PORT", help="port of the gateway (default: 8080)"
    )
    parser.add_argument("--console-port", type=port, help=SUPPRESS)  # taken, but there is no console yet


def run(invocation: Invocation) -> int:
    if invocation.options.watch and invocation.options.detach:
        raise usage("--watch stays in the foreground; --detach does not.", "Give one of the two.")
    text = invocation.text()
    client = invocation.client()
    if invocation.env != "dev" or is_remote(invocation):
        platform = doable(invocation, text).platform
        if remote(platform):
            return on_cluster(invocation, platform, text)
    request: UpRequest = {"action": "up", "text": text, "file": invocation.file}
    with Signals() as signals:
        try:
            status = client.status()
        except NotRunning:
            platform = doable(invocation, text).platform  # a mistake is found before anything is started
        else:
            same_ports(invocation, status)
            return attach(invocation, client, request, signals)
        if not remote(platform):
            return Start(invocation, client, request, signals).run()
    return on_cluster(invocation, platform, text)


def remote(platform: Platform) -> bool:
    from idi.declaration.types import KubernetesTarget

    return isinstance(platform.target, KubernetesTarget)


def on_cluster(invocation: Invocation, platform: Platform, text: str) -> int:
    if invocation.options.watch:
        raise usage("--watch is for a platform on this machine: what a cluster runs are images.")
    if invocation.options.gateway_port:
        raise usage(
            "--gateway-port is for a platform on this machine.", "idi status says where the gateway is."
        )
    from idi.cli.up_cluster import prepare

    with Signals() as signals:
        client = prepare(invocation, platform, signals)
        return attach(invocation, client, {"action": "up", "text": text, "file": invocation.file}, signals)


def attach(invocation: Invocation, client: Client, request: UpRequest, signals: Signals) -> int:
    """Control runs already: apply the declaration, say what changed, and go."""
    screen = invocation.screen
    with Live(screen, signals) if screen.live else nullcontext() as live:
        follower = Follower(screen, live)
        with client.change(request) as stream:
            if not follow(stream, follower, signals):
                follower.say([("The change goes on by itself; idi status shows it.", "")])
                return INTERRUPTED
        if live:
            live.clear()
    failure = follower.failure("The change")
    if failure:
        raise failure
    if follower.changed:
        screen.out([("Done", "green"), (f" in {took(follower.seconds)}.", "")])
    if invocation.options.watch:
        screen.out("Watching for saved files; Ctrl-C ends the watching and nothing else.")
        return watch_beside(invocation, client, request["text"], signals)
    return DONE


def watch_beside(invocation: Invocation, client: Client, text: str, signals: Signals) -> int:
    """Restart what is saved while somebody else is in charge of the platform."""
    from idi.cli.reload import Reload

    narrator = Narrator(invocation.screen)
    with client.watch() as watch, Reload(invocation, client, text, None) as reload:
        reload.readers[watch] = narrator.take
        pump(reload.readers, signals, until=lambda: signals.stops > 0, tick=reload.tick)
    if signals.stops:
        return INTERRUPTED
    raise NotRunning("Control has ended.")


def same_ports(invocation: Invocation, status: StatusView) -> None:
    for option, url in (
        ("gateway_port", status["gateway"]["url"]),
        ("console_port", status["console"]["url"]),
    ):
        wanted = getattr(invocation.options, option)
        if wanted and url and not url.endswith(f":{wanted}"):
            name = option.replace("_", "-")
            raise usage(
                f"The platform runs already, at {url}: --{name} {wanted} cannot change that.",
                f"{invocation.command_line('down')}, then up with --{name} {wanted}.",
            )


def check_port(invocation: Invocation, port: int) -> None:
    """Refuse a taken port before anything is started, and name its holder."""
    from idi.cli.ports import holder, is_free, next_free

    if is_free(port):
        return
    pid, program = holder(port)
    other = next_free(port)
    raise Failure(
        f"Port {port}, which the gateway needs, is held by "
        + (f"{program} (pid {pid})." if pid else "a program of another user."),
        way_out=f"End that, or take another port: {invocation.command_line(f'up --gateway-port {other or port + 1}')}",
    )


class Start:
    """A first `up`: from no control to a running platform, and (not detached) on until it is stopped."""

    def __init__(self, invocation: Invocation, client: Client, request: UpRequest, signals: Signals) -> None:
        self.invocation = invocation
        self.client = client
        self.request = request
        self.signals = signals
        self.detach: bool = invocation.options.detach
        self.pid = 0
        self.board: Board | None = None
        self._reload: Reload | None = None
        self.narrator = Narrator(invocation.screen)
        self.follower = Follower(invocation.screen)

    def run(self) -> int:
        screen = self.invocation.screen
        with Live(screen, self.signals) if screen.live else nullcontext() as live:
            if live:
                self.board = Board(live, "" if self.detach else "Ctrl-C stops all")
                self.follower = Follower(screen, live, steps=False)
            return self._launch()

    def _launch(self) -> int:
        from idi.cli.launch import Ports, launch

        options = self.invocation.options
        left = left_over(self.invocation)
        ports = Ports(
            self.invocation,
            left=left,
            gateway=options.gateway_port or 0,
            console=options.console_port or 0,
        )
        if not left:  # what an earlier control left is taken over, its port and all
            check_port(self.invocation, ports.gateway)
        tick = self.board.starting if self.board else lambda: None
        try:
            launched = launch(self.invocation, self.signals, ports, tick)
        except Failure:
            if self.board:
                self.board.live.clear()
            raise
        if not launched.ours:
            if self.board:
                self.board.live.clear()
            return attach(self.invocation, self.client, self.request, self.signals)
        self.pid = launched.status["control"]["pid"]
        try:
            return self._change()
        except Answered as error:
            stop_quietly(
                self.client, self.pid
            )  # refused: the control that was started only for this goes again
            raise from_error(error) from error

    def _change(self) -> int:
        """Ask for the change and watch the platform while it is made."""
        with self.client.watch() as watch, self.client.change(self.request) as change:
            if self.board:
                self.board.follower = self.follower
            pump(
                {watch: self._view, change: self.follower.take},
                self.signals,
                until=lambda: self.follower.end is not None or self.signals.stops > 0,
                tick=self._tick,
            )
            if self.signals.stops:
                return self._interrupted()
            return self._started()

    def _started(self) -> int:
        failure = self.follower.failure("Starting")
        status = self.client.status(figures=True)
        self.narrator.before = status  # what the steps have said already is no news
        if self.board:
            self.board.take(status)
        nothing = not any(
            instance["state"] == "ready" for m in status["modules"] for instance in m["instances"]
        )
        empty = nothing and not any(part["state"] == "ready" for part in status["parts"])
        if failure and (empty or (nothing and not self.detach)):
            self._end_board()
            self._down()
            raise Failure("Nothing could be started, so everything was stopped again.", failure.why)
        if self.board:
            self.board.done = "" if failure else self._done(status)
            self.board.hint = self._hint(status)
            self.board.draw()
        if self.detach:
            self._end_board()
            if failure:
                unread = f"{failure.way_out} " if self.invocation.json else ""
                failure.way_out = f"{unread}{self._left(status)}"
                raise failure
            if not self.board:
                self.invocation.screen.out(f"{self._done(status)} {status['gateway']['url']}")
            return DONE
        if not self.board and not failure:
            self.invocation.screen.out(f"{self._done(status)} {status['gateway']['url']}  Ctrl-C stops all")
        elif failure:
            self.follower.say([(f"{failure.why.rstrip('.')}; ", "bold"), ("the rest goes on running.", "")])
        return self._stay()

    def _reloading(self) -> AbstractContextManager[Reload | None]:
        if not self.invocation.options.watch:
            return nullcontext()
        from idi.cli.reload import Reload

        live = self.board.live if self.board else None
        try:
            return Reload(self.invocation, self.client, self.request["text"], live)
        except Failure as failure:  # whoever started the platform stays with it
            self.follower.say([(f"{failure.what} {failure.why}".strip(), "yellow")])
            return nullcontext()

    def _left(self, status: StatusView) -> str:
        """What runs after a start that failed, and what to do with it."""
        modules = [m["name"] for m in status["modules"] if m["ready"]]
        parts = ["control", *(part["name"] for part in status["parts"] if part["state"] == "ready")]
        what = (
            "The rest goes on running" if modules else f"No module is ready; {', '.join(parts)} go on running"
        )
        line = self.invocation.command_line
        return f"{what}: {line('status')}, {line('logs')}; {line('down')} stops it."

    def _stay(self) -> int:
        """Show what happens until somebody stops it."""
        try:
            with self.client.watch() as watch, self._reloading() as reload:
                readers: dict[Source, Taker] = {watch: self._view}
                if reload:
                    self._reload = reload
                    readers = reload.readers
                    readers[watch] = self._view
                pump(readers, self.signals, until=lambda: self.signals.stops > 0, tick=self._tick)
        except NotRunning:
            pass  # it went between two requests
        self._reload = None
        if self.signals.stops:
            return self._interrupted()
        return self._control_gone()

    def _control_gone(self) -> int:
        """Control ended without us: by `idi down` elsewhere, or it was killed."""
        end = End(self.pid)
        end.wait(5.0)
        end.close()
        left = left_over(self.invocation)
        if self.board and not left:
            self.board.live.clear()
        elif self.board:
            self.board.live.finish()
        if not left:
            self.invocation.screen.out("Stopped from elsewhere; nothing is left running.")
            return DONE
        raise Failure(
            "Control ended, but what it started goes on running.",
            way_out=f"{self.invocation.command_line('up')} takes it over, "
            f"{self.invocation.command_line('down')} stops it.",
        )

    def _interrupted(self) -> int:
        """Ctrl-C: stop everything; a second one leaves the rest of the stopping to control."""
        if self.board:
            self.board.done, self.board.hint, self.board.follower = (
                "Stopping.",
                "Ctrl-C leaves it to itself",
                None,
            )
        self._down()
        return INTERRUPTED

    def _down(self) -> None:
        board, screen = self.board, self.invocation.screen
        follower = Follower(screen, board.live if board else None, steps=board is None)
        if board:
            board.hint, board.follower, board.doing = "Ctrl-C again leaves it to itself", follower, STOPPING
        elif not screen.as_json:
            screen.out("Stopping.")
        self.signals.stops = 0
        try:
            take_down(self.invocation, self.client, self.signals, follower, self.pid, board)
        except NotRunning:
            pass  # somebody else was quicker

    def _view(self, view: StatusView) -> None:
        if self.board:
            self.board.take(view)
        elif self.follower.end is not None:
            self.narrator.take(view)
        else:
            self.narrator.before = view

    def _tick(self) -> None:
        if self.board:
            self.board.draw()
        if self._reload:
            self._reload.tick()

    def _end_board(self) -> None:
        if self.board:
            self.board.draw()
            self.board.live.finish()

    def _done(self, status: StatusView) -> str:
        ready = sum(m["ready"] >= m["desired"] and m["state"] == "ready" for m in status["modules"])
        return f"{ready} of {len(status['modules'])} ready in {took(self.follower.seconds)}."

    def _hint(self, status: StatusView) -> str:
        return hint(self.invocation, status, end="down" if self.detach else "")


COMMANDS = {
    "up": Command(
        run,
        arguments,
        examples=(
            "idi up",
            "idi up --watch",
            "idi up --detach",
            "idi up --gateway-port 9080 --file other/platform.yaml",
        ),
        about="Start everything and show it live; Ctrl-C stops all of it. Where it runs already: bring it to\n"
        "what the file says now, without a failed request, and return.",
    )
}
