"""`idi validate` and `idi schema`: the declaration, without anything running."""

from __future__ import annotations

from idi.cli.commands import Command
from idi.cli.failure import DONE, USAGE, Failure, invalid, usage
from idi.cli.invocation import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.declaration.load import Loaded, Rejected
    from idi.declaration.types import Platform
    from idi.plan.configured import Fitted
    from idi.plan.types import Overlays


def loaded(invocation: Invocation, text: str) -> Loaded | Rejected:
    from idi.declaration.load import load

    return load(text, file=invocation.file, environment=invocation.env)


def checked(invocation: Invocation, text: str) -> Loaded:
    """The declaration, or the end of the command with every mistake in it."""
    from idi.declaration.load import Rejected

    found = loaded(invocation, text)
    if isinstance(found, Rejected):
        raise invalid([str(mistake) for mistake in found.mistakes])
    return found


def checked_with(invocation: Invocation, text: str, overlays: Overlays) -> tuple[Loaded, Fitted]:
    """The same with what was recorded on top of it."""
    from idi.declaration.load import Rejected
    from idi.plan.configured import fitted

    found = fitted(text, invocation.file, invocation.env, overlays)
    if isinstance(found.loaded, Rejected):
        raise invalid([str(mistake) for mistake in found.loaded.mistakes])
    return found.loaded, found


def doable(invocation: Invocation, text: str) -> Loaded:
    """The declaration, and the end of the command also where `idi up` would refuse it."""
    found = checked(invocation, text)
    refuse(found.platform)
    return found


def refuse(platform: Platform) -> None:
    """Where this version cannot do it: as control would say it."""
    from idi.plan.unbuilt import unbuilt

    reason, way_out = unbuilt(platform)
    if reason:
        raise Failure(reason, "", way_out)


def refused(platform: Platform) -> list[str]:
    """What `idi up` of this version does not take though it is no mistake; goes with the last of it."""
    from idi.plan.unbuilt import unbuilt

    return [*filter(None, unbuilt(platform)[:1])]


def validate(invocation: Invocation) -> int:
    from idi.declaration.load import Rejected

    found = loaded(invocation, invocation.text())
    if isinstance(found, Rejected):
        mistakes = [str(mistake) for mistake in found.mistakes]
        if invocation.json:
            document = {"valid": False, "mistakes": mistakes, "warnings": [], "refused": []}
            invocation.screen.document(document)
            return USAGE
        raise invalid(mistakes)
    platform = found.platform
    warnings = [str(warning) for warning in found.warnings]
    beyond = refused(platform)
    if invocation.json:
        document = {"valid": True, "mistakes": [], "warnings": warnings, "refused": beyond}
        invocation.screen.document(document)
        return DONE
    for warning in warnings:
        invocation.screen.err([(warning, "yellow")])
    count = sum(module.instances for module in platform.modules.values())
    invocation.screen.out(
        [
            (f"{invocation.file} is valid", "green"),
            (f": {platform.name}, {platform.environment}, {number(len(platform.modules), 'module')} ", ""),
            (f"with {number(count, 'instance')}, {number(len(platform.externals), 'external')}.", ""),
        ]
    )
    if beyond:
        invocation.screen.err([("idi up of this version refuses it all the same:", "yellow")])
    for sentence in beyond:
        invocation.screen.err(sentence)
    return DONE


def number(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def schema_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", help="write it there instead of on stdout")


def schema(invocation: Invocation) -> int:
    import json

    from idi.declaration.schema import schema as json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
    output = invocation.options.output
    if not output:
        invocation.screen.raw(text)
        return DONE
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise usage(f"{output} cannot be written: {error.strerror}.") from error
    invocation.screen.out(f"{output}: name it in the first line of the declaration:")
    invocation.screen.out(f"# yaml-language-server: $schema=./{output.removeprefix('./')}")
    return DONE


COMMANDS = {
    "validate": Command(
        validate,
        examples=("idi validate", "idi validate --env production", "idi validate --json"),
        about="Check the declaration: every mistake with its line, what was expected and how to mend it.\n"
        "Exit code 2 when there is one. Nothing has to run. What may be declared and cannot be done by this\n"
        'version yet is no mistake: it is said ("refused" in the document), and idi up refuses it.',
    ),
    "schema": Command(
        schema,
        schema_arguments,
        examples=("idi schema --output platform.schema.json",),
        about="The JSON Schema of platform.yaml, for editors to complete and check it.",
    ),
}
