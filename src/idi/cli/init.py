"""`idi init`: a first platform that runs, written into a folder; never over anything that is there."""

from __future__ import annotations

import os

from idi.cli.commands import Command
from idi.cli.failure import DONE, Failure, usage
from idi.cli.invocation import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default=".", metavar="DIR", help="where (default: here)")


def run(invocation: Invocation) -> int:
    import json

    from idi.declaration.example import example
    from idi.declaration.schema import schema

    folder: str = invocation.options.folder
    files = {**example(), "platform.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"}
    there = [name for name in files if os.path.lexists(os.path.join(folder, name))]
    if there:
        what = f"{' and '.join(there)} exist{'s' if len(there) == 1 else ''} in {folder} already; nothing was written."
        raise usage(what, "Name another folder: idi init DIR")
    written: list[str] = []
    try:
        os.makedirs(folder, exist_ok=True)
        for name, text in files.items():
            path = os.path.normpath(os.path.join(folder, name))
            with open(path, "x", encoding="utf-8") as file:
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            os.unlink(path)
        where = error.filename or folder
        raise Failure(
            f"{where} cannot be written: {error.strerror}.", way_out="Name another folder."
        ) from error
    if invocation.json:
        invocation.screen.document({"written": written})
        return DONE
    for path in written:
        invocation.screen.out([("  + ", "green"), (path, "")])
    go = "" if os.path.normpath(folder) == "." else f"cd {folder} && "
    invocation.screen.out([("Start it: ", ""), (f"{go}idi up", "bold")])
    return DONE


COMMANDS = {
    "init": Command(
        run,
        arguments,
        examples=("idi init", "idi init my-platform && cd my-platform && idi up"),
        about="Write a first platform.yaml with two small modules in plain Python, and the schema beside it\n"
        "for editors. Overwrites nothing.",
    )
}
