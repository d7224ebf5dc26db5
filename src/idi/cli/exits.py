"""What an exit code says that a shell gives and not the program: 127, nothing was found to run; 126, it may not be."""

from __future__ import annotations

import re
from collections.abc import Sequence

MEANINGS = {"127": "command not found", "126": "it cannot be run"}
CODE = re.compile(r"\bended with exit code (12[67])\b")
COMMAND = re.compile(
    r"(?:^|[\s:])['‘]?([^\s:'’]+)['’]?: "
    r"(?:command not found|not found|No such file or directory|Permission denied|Exec format error|Is a directory|"
    r"cannot execute[^:]*)$"
)


def explained(reason: str) -> str:
    """`ended with exit code 127 (command not found)`."""
    return CODE.sub(lambda found: f"{found[0]} ({MEANINGS[found[1]]})", reason)


def remedy(reason: str, lines: Sequence[str]) -> str:
    """What helps, with the name of the command where the shell's last words have it; else nothing."""
    code = CODE.search(reason)
    if code is None:
        return ""
    named = [found[1] for line in lines if (found := COMMAND.search(line))]
    name = named[-1] if named else ""
    if code[1] == "127":
        return (
            f"{name or 'Its command'} was not found: is the name right, and is it on the PATH that the first idi up "
            f"had? A program beside the declaration is written ./{name.rpartition('/')[2] or 'NAME'}."
        )
    return (
        f"{name or 'Its command'} cannot be run: it must be a program and executable (chmod +x), or be named after "
        f"what runs it, such as: sh {name or './NAME'}."
    )
