"""`idi config`: what modules are configured with and by whom, and other values for some of it.

What was read is what is replaced: the version at which a module's values were read goes with every change, and control
refuses it where somebody else was quicker.
"""

from __future__ import annotations

from idi.api.client import NotRunning
from idi.cli.change import apply
from idi.cli.commands import Command
from idi.cli.failure import DONE, Failure, usage
from idi.cli.invocation import Invocation
from idi.cli.left import left_over
from idi.cli.names import unknown
from idi.cli.parser import Intermixed, add_globals, whole
from idi.cli.terminal.words import cut, did_you_mean, plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Sequence

    from idi.api.types import ConfigRequest, ConfigView, ModuleConfigView, ValueView

SHOWN = 100
SECRET = "(a secret)"


def arguments(parser: ArgumentParser) -> None:
    what = parser.add_subparsers(
        dest="what", metavar="WHAT", required=True, title="What", parser_class=Intermixed
    )
    get = what.add_parser("get", help="values, where each comes from, and each module's version")
    get.add_argument("module", nargs="?", metavar="MODULE", help="only this module's")
    get.add_argument("name", nargs="?", metavar="NAME", help="only the value of this variable")
    set_ = what.add_parser("set", help="other values than the file's; what runs is renewed one by one")
    set_.add_argument("module", metavar="MODULE", help="whose configuration it is")
    set_.add_argument(
        "values",
        nargs="*",
        metavar="NAME=VALUE",
        help="a variable and its value, as platform.yaml would hold it",
    )
    set_.add_argument(
        "--unset",
        action="append",
        default=[],
        metavar="NAME",
        help="the file's own value again; may be given again",
    )
    set_.add_argument(
        "--expect", type=whole, metavar="VERSION", help="only if this is the module's version (default: as read now)"
    )  # fmt: skip
    for each in (get, set_):
        add_globals(each)


def run(invocation: Invocation) -> int:
    return {"get": get, "set": set_values}[invocation.options.what](invocation)


# --- get ---


def get(invocation: Invocation) -> int:
    options, screen = invocation.options, invocation.screen
    try:
        view = invocation.client().config()
        offline = False
    except NotRunning:
        view = from_file(invocation)
        offline = True
    modules = view["modules"]
    if options.module is not None:
        modules = [module_of(view, options.module)]
    if options.name is not None:
        return show_one(invocation, modules[0], options.name)
    if invocation.json:
        screen.document({"modules": modules})
        return DONE
    if offline:
        rest = "; control does not run" if left_over(invocation) else ""
        screen.warn([(f"From {invocation.file} as it is now, since nobody answers{rest}.", "yellow")])
    for at, module in enumerate(modules):
        show(invocation, module, first=not at)
    return DONE


def from_file(invocation: Invocation) -> ConfigView:
    """What the next `idi up` would apply: the file with what was set on top of it."""
    from idi.api.offline import recorded_overlays
    from idi.api.views import config_view
    from idi.cli.validate import checked_with

    text = invocation.text()
    overlays = recorded_overlays(invocation.file, invocation.env)
    loaded, found = checked_with(invocation, text, overlays)
    for note in found.notes:
        invocation.screen.warn([(note, "yellow")])
    return config_view(loaded.platform, found.overlays)


def module_of(view: ConfigView, name: str) -> ModuleConfigView:
    for module in view["modules"]:
        if module["module"] == name:
            return module
    raise unknown(name, [module["module"] for module in view["modules"]])


def show(invocation: Invocation, module: ModuleConfigView, *, first: bool) -> None:
    screen = invocation.screen
    if not first:
        screen.out()
    screen.out([(module["module"], "bold"), (f"  version {module['version']}", "dim")])
    if not module["values"]:
        screen.out([("  nothing is configured", "dim")])
        return
    names = max(len(one["name"]) for one in module["values"])
    values = max(len(shown(one)) for one in module["values"])
    for one in module["values"]:
        style = "dim" if one["value"] is None else ""
        screen.out(
            [
                (f"  {one['name'].ljust(names)}  ", ""),
                (shown(one).ljust(values), style),
                (f"  {one['origin']}", "cyan"),
            ]
        )


def shown(one: ValueView) -> str:
    """On one line; a value that is cut is whole with NAME, and with --json."""
    return SECRET if one["value"] is None else cut(plain(one["value"]), SHOWN) or "(empty)"


def show_one(invocation: Invocation, module: ModuleConfigView, name: str) -> int:
    """The bare value, for scripts."""
    one = next((each for each in module["values"] if each["name"] == name), None)
    if one is None:
        hint = did_you_mean(name, [each["name"] for each in module["values"]])
        raise usage(
            f"{module['module']} has no variable '{name}'.{hint}", f"idi config get {module['module']}"
        )
    if invocation.json:
        invocation.screen.document({**module, "values": [one]})
    elif one["value"] is None:
        raise Failure(f"{name} of {module['module']} is a secret: it is there, and it is never shown.")
    else:
        invocation.screen.out(one["value"])
    return DONE


# --- set ---


def set_values(invocation: Invocation) -> int:
    options = invocation.options
    request: ConfigRequest = {
        "action": "config",
        "module": options.module,
        "set": values_of(options.values),
        "unset": list(dict.fromkeys(options.unset)),
        "expect": -1,
    }
    if not request["set"] and not request["unset"]:
        raise usage(
            "Nothing is to be set.", f"Write for example: idi config set {options.module} LOG_LEVEL=debug"
        )
    if both := sorted({*request["set"]} & {*request["unset"]}):
        raise usage(f"{both[0]} is to be set and to be unset; say one of the two.")
    version = module_of(invocation.client().config(), options.module)["version"]
    request["expect"] = version if options.expect is None else options.expect
    return apply(invocation, request, f"Configuring {options.module}")


def values_of(words: Sequence[str]) -> dict[str, str | int | float | bool]:
    from idi.declaration.names import VARIABLE
    from idi.declaration.overlay import Value, plain_of, read_word

    found: dict[str, str | int | float | bool] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise usage(f"'{plain(word)}' is not NAME=VALUE.", "Write for example: LOG_LEVEL=debug")
        if name in found:
            raise usage(f"{name} is named twice.")
        if not VARIABLE.fits(name):
            raise usage(plain(VARIABLE.wrong(name, "the variable")))
        value = read_word(text)
        if not isinstance(value, Value):
            raise usage(
                plain(f"{name}: {value}"), f"In a shell quotes need quotes around them: {name}='\"TEXT\"'"
            )
        found[name] = plain_of(value)
    return found


COMMANDS = {
    "config": Command(
        run,
        arguments,
        examples=(
            "idi config get",
            "idi config get jede LOG_LEVEL",
            "idi config set jede LOG_LEVEL=debug WORKERS=4",
            "idi config set jede --unset LOG_LEVEL --expect 3",
        ),
        about="What modules are configured with, and where each value comes from. Values that are set here stand\n"
        "above the file's and stay through `idi up`; `idi plan` names them. Only what they concern is renewed, as\n"
        "`idi restart` does it. Secrets are never shown.",
    )
}
