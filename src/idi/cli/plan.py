"""`idi plan`: what `idi up` would change and why, from control, or against nothing where none runs."""

from __future__ import annotations

from idi.api.client import NotRunning
from idi.api.errors import IdiError
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, Failure
from idi.cli.invocation import Invocation
from idi.cli.left import left_over
from idi.cli.terminal.screen import Line, Screen
from idi.cli.terminal.words import plain, wrap
from idi.cli.validate import checked_with, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.api.types import DriftView, PlanView, RefusedView, StepView

SYMBOL_STYLES = {"+": "green", "~": "yellow", "-": "red", ".": "dim"}


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--origins", action="store_true", help="every value of the declaration and where it came from"
    )


def run(invocation: Invocation) -> int:
    text = invocation.text()
    try:
        view = invocation.client(timeout=30.0).plan(text, invocation.file)
        instead = ""
    except NotRunning:
        view = offline(invocation, text)
        instead = "nothing runs now"
        if left_over(invocation):
            instead = "control does not run: what it left running is not counted"
    if invocation.json:
        invocation.screen.document(view)
        return FAILED if view["refused"] else DONE
    if invocation.options.origins:
        show_origins(invocation.screen, view)
        return DONE
    show(invocation, view, instead)
    if view["refused"]:
        number = len(view["refused"])
        raise Failure(
            f"The cluster would refuse {'this' if number == 1 else f'{number} things of this'}; nothing was changed.",
            way_out=f"Mend it as said above, then {invocation.command_line('plan')} again.",
        )
    return DONE


def offline(invocation: Invocation, text: str) -> PlanView:
    """The same document, computed here: nothing runs, so everything would be started."""
    import os

    from idi.api.offline import recorded_overlays
    from idi.api.views import plan_view
    from idi.plan import scaled
    from idi.plan.applicable import applicable
    from idi.plan.describe import describe_all
    from idi.plan.desired import desired
    from idi.plan.difference import difference
    from idi.plan.types import Context, Overlays
    from idi.world.types import World

    unread = []
    try:
        overlays = recorded_overlays(invocation.file, invocation.env)
    except IdiError as error:
        overlays = Overlays()
        unread.append(f"What idi scale and idi config set recorded is not in this plan. {error}")
    loaded, fitted = checked_with(invocation, text, overlays)
    refuse(loaded.platform)
    found = applicable(loaded, fitted)
    context = Context(os.path.dirname(os.path.realpath(invocation.file)), "http://127.0.0.1:8080")
    steps = difference(desired(found.platform, found.overlays, context), World())
    warnings = [*found.warnings, *unread, *found.notes]
    return plan_view(describe_all(steps), scaled.origins(found.platform, found.overlays), warnings)


def show(invocation: Invocation, view: PlanView, instead: str) -> None:
    screen = invocation.screen
    for warning in view["warnings"]:
        screen.warn([(warning, "yellow")])
    changes = [step for step in view["steps"] if step["symbol"] != "."]
    for one in view["drift"]:
        if one["left"]:
            screen.out([(f"  {plain(left(one))}", "dim")])
    if not changes and not view["steps"]:
        screen.out([("No changes: ", "green"), ("what runs is what is declared.", "")])
        return
    for line in lines(view["steps"], screen.width):
        screen.out(line)
    screen.out()
    screen.out(summary(changes, instead))
    if view["refused"]:
        screen.out()
        for line in refusals(view["refused"], screen.width):
            screen.out(line)
        return
    screen.out([(f"{invocation.command_line('up')} does it; nothing was changed.", "dim")])


def left(one: DriftView) -> str:
    """What a controller of the cluster has set, and keeps."""
    return (
        f"{one['object']} {one['field']} is {one['there']}, {one['declared']} is declared: "
        f"left to {one['manager']}, which owns it."
    )


def refusals(refused: list[RefusedView], width: int) -> list[Line]:
    """What the cluster would refuse: of which object, in its own words, and what helps."""
    found: list[Line] = []
    for one in refused:
        found.append([("  ✗ ", "red"), (one["module"], "bold"), (f"  {plain(one['object'])}", "")])
        for piece in wrap(plain(one["reason"]), width and width - 6, 6):
            found.append([("      ", ""), (piece, "red")])
        for piece in wrap(plain(one["way_out"]), width and width - 6, 6):
            found.append([("      ", ""), (piece, "dim")])
    return found


def lines(steps: list[StepView], width: int) -> list[Line]:
    """One block per module: its steps, and the reason once. That the last step of a module is awaited goes
    without saying; between two steps it is the point."""
    found: list[Line] = []
    awaited = [at for at, step in enumerate(steps) if step["symbol"] == "."]
    silent = {at for at in awaited if at + 1 == len(steps) or steps[at + 1]["module"] != steps[at]["module"]}
    alone = {step["module"] for step in steps} - {step["module"] for step in steps if step["symbol"] != "."}
    steps = [step for at, step in enumerate(steps) if at not in silent or step["module"] in alone]
    widest = max(len(step["module"]) for step in steps)
    before = reason = ""
    for step in steps:
        if step["module"] != before:
            before, reason = step["module"], ""
            name = step["module"].ljust(widest)
        else:
            name = " " * widest
        style = SYMBOL_STYLES.get(step["symbol"], "")
        found.append(
            [
                ("  ", ""),
                (step["symbol"] if step["symbol"] != "." else " ", style),
                (f" {name}", "bold"),
                (f"  {plain(step['text'])}", style if step["symbol"] == "." else ""),
            ]
        )
        if step["reason"] and step["reason"] != reason:
            reason = step["reason"]
            indent = widest + 6
            for at, piece in enumerate(wrap(plain(reason), width and width - indent - 9, 6)):
                found.append(
                    [(" " * indent, ""), ("because " if at == 0 else " " * 8, "dim"), (piece, "cyan")]
                )
    return found


def summary(changes: list[StepView], instead: str) -> Line:
    """How many modules and parts start, change and stop; `instead` says against what, where nothing answers."""
    kinds: dict[str, set[str]] = {"+": set(), "~": set(), "-": set()}
    for step in changes:
        kinds[step["symbol"]].add(step["module"])
    both = kinds["+"] & kinds["-"]  # new instances before the old ones go
    changed = kinds["~"] | both
    started, stopped = kinds["+"] - changed, kinds["-"] - changed
    words = [
        f"{len(names)} {verb}"
        for names, verb in ((started, "to start"), (changed, "to change"), (stopped, "to stop"))
        if names
    ]
    where = f" ({instead})" if instead else ""
    return [(", ".join(words) or "Only waiting", "bold"), (where, "dim"), (".", "")]


def show_origins(screen: Screen, view: PlanView) -> None:
    if not view["origins"]:
        screen.out("Every value is a default.")
        return
    widest = max(len(path) for path in view["origins"])
    for path, origin in view["origins"].items():
        screen.out([(path.ljust(widest), ""), ("  " + origin, "dim" if origin == "default" else "cyan")])


COMMANDS = {
    "plan": Command(
        run,
        arguments,
        examples=("idi plan", "idi plan --origins", "idi plan --json | jq '.steps | length'"),
        about="What `idi up` would change, and why: + starts, ~ changes, - stops. Changes nothing itself.\n"
        "Where nothing runs, it says what a first `idi up` would do. On a cluster it also says what somebody changed\n"
        "there by other means, and asks the API server what it would refuse; then the exit code is 1.",
    )
}
