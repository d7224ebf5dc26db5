"""How a process ended, in words for people, made once where it is learnt: status, journal and API carry them.

Two exit codes are commonly the shell's and not the program's: 127, nothing was found to run; 126, it may not
be run. Which command that was stands in the shell's last words, if anywhere, so the last lines that were
printed are looked at for it. What helps is made from the same words (`remedy`), and not from the code alone:
who has the reason needs no output to go with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NOT_FOUND, NOT_RUN = 127, 126
LINES = 10
"""So many of the last lines may hold the shell's words: what called the shell may have some of its own."""

_UNKNOWN = "the command"
_COMMAND = re.compile(
    r"(?:^|[\s:])['‘]?([^\s:'’]{1,200})['’]?: "
    r"(?:command not found|not found|No such file or directory|Permission denied|Exec format error|Is a directory|"
    r"cannot execute[^:]*)$"
)
_SAID = re.compile(r"\bended with exit code 12[67]: (\S+|the command) (was not found|cannot be run)")
_UNSET = re.compile(r"\bsecret \S+ is not set; ")
_ENDED = re.compile(
    r"(?:its sidecar )?(?:ended\b|was killed by |had not started)|secret \S+ |its secret|"
    r"\S+ cannot (?:start|be watched): "
)


def exited(code: int, last_lines: Iterable[str] = ()) -> str:
    """`ended with exit code 127: pyhton was not found`; the lines are looked at only for such codes."""
    if code not in (NOT_FOUND, NOT_RUN):
        return f"ended with exit code {code}"
    named = [found[1] for line in last_lines if (found := _COMMAND.search(line))]
    name = named[-1] if named and named[-1].isprintable() else _UNKNOWN
    return f"ended with exit code {code}: {name} {'was not found' if code == NOT_FOUND else 'cannot be run'}"


def remedy(reason: str) -> str:
    """What helps where a reason says that a command was not found or may not be run, or that a secret is not set;
    else nothing."""
    if _UNSET.search(reason):
        return "It starts by itself when that is set."
    said = _SAID.search(reason)
    if said is None:
        return ""
    name = "" if said[1] == _UNKNOWN else said[1]
    if said[2] == "was not found":
        return (
            f"Is {name or 'its name'} spelt right, and is it on the PATH that the first idi up had? A program "
            f"beside the declaration is written ./{name.rpartition('/')[2] or 'NAME'}."
        )
    return (
        f"{name or 'It'} must be a program and executable (chmod +x), or be named after what runs it, such as: "
        f"sh {name or './NAME'}."
    )


def is_end(reason: str) -> bool:
    """Whether a reason is that a process ended or could not be started, so that nothing else is one."""
    return _ENDED.match(reason) is not None
