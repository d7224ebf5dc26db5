"""Names of modules as they run, checked before anything is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from idi.cli.failure import usage
from idi.cli.invocation import Invocation
from idi.cli.terminal.words import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.api.types import StatusView


def check_modules(invocation: Invocation, names: Sequence[str]) -> StatusView:
    """The status, if every name is a module of it; else usage, with the nearest name."""
    view = invocation.client().status()
    known = [module["name"] for module in view["modules"]]
    for name in names:
        if name not in known:
            raise unknown(name, known)
    return view


def unknown(name: str, known: Sequence[str]) -> Exception:
    from idi.declaration.nearest import listed

    return usage(f"No module is called '{name}'.{did_you_mean(name, known)}", f"There are {listed(known)}.")
