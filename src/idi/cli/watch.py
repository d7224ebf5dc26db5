"""`idi status --watch`: the table in place on a terminal, else a line per event; JSON lines with --json."""

from __future__ import annotations

from idi.cli.failure import INTERRUPTED, NOT_RUNNING, Failure
from idi.cli.invocation import Invocation
from idi.cli.once import show
from idi.cli.terminal.live import Live
from idi.cli.terminal.narrate import Narrator
from idi.cli.terminal.pump import pump
from idi.cli.terminal.signals import Signals
from idi.cli.terminal.view import Board

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import StatusView


def watch(invocation: Invocation) -> int:
    screen = invocation.screen
    with Signals() as signals, invocation.client().watch() as stream:
        if screen.as_json:
            pump({stream: screen.document}, signals, until=lambda: signals.stops > 0)
        elif screen.live:
            with Live(screen, signals) as live:
                board = Board(live, "Ctrl-C ends the watching, not the platform")

                pump({stream: board.take}, signals, until=lambda: signals.stops > 0, tick=board.draw)
                live.finish()
        else:
            narrator = Narrator(screen)

            def tell(view: StatusView) -> None:
                if narrator.before is None:
                    show(invocation, view)
                narrator.take(view)

            pump({stream: tell}, signals, until=lambda: signals.stops > 0)
        if signals.stops:
            return INTERRUPTED
    raise Failure("The platform was stopped, or its control ended.", code=NOT_RUNNING)
