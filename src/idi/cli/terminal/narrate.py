"""What changed between one status and the next, as lines: for whoever follows without a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from idi.cli.terminal.screen import Line, Screen
from idi.cli.terminal.table import STATE_STYLES, places, reason_of
from idi.cli.terminal.words import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import ModuleView, StatusView


class Narrator:
    """A line for each module or part whose state or number changed, and for each new warning."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self.before: StatusView | None = None

    def take(self, view: StatusView) -> None:
        if self.before is not None:
            if self._screen.as_json:
                if essence(view) != essence(self.before):
                    self._screen.document(view)
            else:
                for line in changes(self.before, view):
                    self._screen.out(line)
        self.before = view


def changes(before: StatusView, after: StatusView) -> Iterator[Line]:
    old_parts = {part["name"]: part["state"] for part in before["parts"]}
    for part in after["parts"]:
        if old_parts.get(part["name"]) != part["state"]:
            yield told(part["name"], part["state"], "", part["reason"])
    old = {module["name"]: module for module in before["modules"]}
    for module in after["modules"]:
        was = old.pop(module["name"], None)
        if was is None or summary(was) != summary(module):
            yield told(
                module["name"], module["state"], f"{module['ready']}/{module['desired']}", where(module)
            )
    for name in old:
        yield told(name, "stopped", "", "")
    known = set(before["warnings"])
    for warning in after["warnings"]:
        if warning not in known:
            yield [("! ", "yellow"), (plain(warning), "")]


def told(name: str, state: str, count: str, more: str) -> Line:
    return [
        (f"  {name}  ", "bold"),
        (f"{count}  " if count else "", ""),
        (state, STATE_STYLES.get(state, "")),
        (f"  {plain(more)}" if more else "", "dim"),
    ]


def where(module: ModuleView) -> str:
    if module["state"] != "ready":
        return reason_of(module)
    return ", ".join(places(module))


def summary(module: ModuleView) -> tuple[object, ...]:
    """What is worth a line when it changes; a reason that only counts tries is not."""
    return (
        module["state"],
        module["ready"],
        module["desired"],
        sum(i["restarts"] for i in module["instances"]),
    )


def essence(view: StatusView) -> list[object]:
    return [
        [(part["name"], part["state"]) for part in view["parts"]],
        [(module["name"], summary(module)) for module in view["modules"]],
        view["warnings"],
        view["rejections"],
        view["changing"],
    ]
