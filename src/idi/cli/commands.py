"""Which commands there are, and in which file each one is: a file is imported only when its command runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from idi.cli.failure import usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.cli.invocation import Invocation

GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "Daily",
        (
            ("init", "init", "write a first platform.yaml"),
            ("up", "up", "start everything, or bring what runs to what is declared"),
            ("down", "down", "stop everything"),
            ("status", "status", "what runs, and how it does"),
            ("logs", "logs", "what the modules write, merged"),
            ("call", "call", "ask a module through the gateway"),
            ("run", "run", "run one instance yourself, under a debugger, in the mesh"),
            ("env", "env", "the environment that a module gets"),
        ),
    ),
    (
        "Change",
        (
            ("plan", "plan", "what `up` would change, and why"),
            ("deploy", "deploy", "push modules as they are declared now"),
            ("scale", "change", "another number of instances of a module"),
            ("restart", "change", "new instances for old, one after the other"),
            ("config", "config", "what modules are configured with, and other values"),
            ("secrets", "secrets", "set, list and rotate what modules may know and nobody else"),
        ),
    ),
    (
        "Connect",
        (
            ("token", "token", "a token for the gateway, or a client's new secret"),
            ("events", "events", "publish and watch events, replay dead ones"),
        ),
    ),
    (
        "Assure",
        (
            ("validate", "validate", "check the declaration"),
            ("test", "smoke", "check what runs from outside"),
            ("keys", "keys", "the keys behind all of it, and another in the place of each"),
            ("audit", "audit", "who changed what, and the proof of it"),
            ("doctor", "doctor", "check this machine, with the remedy for what is wrong"),
        ),
    ),
    (
        "Deliver",
        (
            ("render", "render", "the declaration's events as AsyncAPI"),
            ("schema", "validate", "the JSON Schema of platform.yaml"),
            ("completion", "completion", "completion for bash, zsh and fish"),
        ),
    ),
)

MODULES = {name: module for _, rows in GROUPS for name, module, _ in rows}
SUMMARIES = {name: summary for _, rows in GROUPS for name, _, summary in rows}


class Command:
    """One command: what it takes (`arguments` adds to its parser), what it does, how it is used.

    `plain` are its options where only the global ones are given: such a call needs no parser. `after` names the option
    that takes all words after `--` as they are.
    """

    def __init__(
        self,
        run: Callable[[Invocation], int],
        arguments: Callable[[ArgumentParser], None] | None = None,
        *,
        examples: tuple[str, ...],
        about: str = "",
        plain: Mapping[str, object] | None = None,
        after: str = "",
    ) -> None:
        self.run = run
        self.arguments = arguments
        self.examples = examples
        self.about = about
        self.plain = plain
        self.after = after


def command(name: str) -> Command:
    """The command of this name; importing its file is all that it costs."""
    if name not in MODULES:
        from idi.cli.terminal.words import did_you_mean

        raise usage(
            f"There is no command '{name}'.{did_you_mean(name, MODULES)}", "idi --help lists the commands."
        )
    from importlib import import_module

    found: dict[str, Command] = import_module(f"idi.cli.{MODULES[name]}").COMMANDS
    return found[name]
