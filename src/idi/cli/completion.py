"""`idi completion`: a script for the shell, which asks `idi completion words` for what may come next.

The shell asks at every press of Tab, so the answer is made without the declaration's loader and without
control: commands and options from the parsers, modules and environments by a look at the file's indents.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence

from idi.api.roles import ROLES
from idi.cli.commands import GROUPS, MODULES, SUMMARIES, Command, command
from idi.cli.failure import DONE
from idi.cli.invocation import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser

    from idi.cli.parser import Parser

SHELLS = ("bash", "zsh", "fish")
GLOBALS = ("--env", "--file", "--role", "--json", "--debug", "--help")
FILES = "files"
"""Stands for: complete a path here."""
SOURCES = ("control", "gateway", "openbao")

BASH = """\
# bash completion for idi: eval "$(idi completion bash)"
_idi() {
    local IFS=$'\\n' word
    COMPREPLY=()
    for word in $(idi completion words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null); do
        word=${word%%$'\\t'*}
        if [ "$word" = files ]; then
            COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
        else
            COMPREPLY+=("$word")
        fi
    done
    if [ "${#COMPREPLY[@]}" = 1 ] && [ "${COMPREPLY[0]%=}" != "${COMPREPLY[0]}" ]; then
        compopt -o nospace
    fi
}
complete -o filenames -F _idi idi
"""

ZSH = """\
#compdef idi
# zsh completion for idi: eval "$(idi completion zsh)"
_idi() {
    local -a found described
    local line
    found=("${(@f)$(idi completion words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $found; do
        if [[ $line == files ]]; then
            _files
        elif [[ -n $line ]]; then
            described+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}")
        fi
    done
    (( $#described )) && _describe -t words idi described
}
if [[ $funcstack[1] == _idi ]]; then
    _idi "$@"
else
    compdef _idi idi
fi
"""

FISH = """\
# fish completion for idi: idi completion fish | source
function __idi_words
    set -l given (commandline -opc) (commandline -ct)
    for line in (idi completion words -- $given[2..-1] 2>/dev/null)
        if test "$line" = files
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c idi -f -a '(__idi_words)'
"""


def arguments(parser: ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")


def run(invocation: Invocation) -> int:
    invocation.screen.raw({"bash": BASH, "zsh": ZSH, "fish": FISH}[invocation.options.shell])
    return DONE


def answer(words: Sequence[str]) -> int:
    """For the scripts: a suggestion per line, a tab and a few words about it."""
    for word, about in suggestions(words or [""]):
        sys.stdout.write(f"{word}\t{about}\n" if about else f"{word}\n")
    return DONE


def suggestions(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What may stand in the place of the last word, with a few words about it."""
    *before, begun = words
    for word, about in candidates(before, begun):
        if word == FILES or word.startswith(begun):
            yield word, about


def candidates(before: list[str], begun: str) -> Iterator[tuple[str, str]]:
    file = option_value(before, "--file") or "platform.yaml"
    if before and before[-1] == "--file":
        yield FILES, ""
        return
    if before and before[-1] == "--env":
        yield from ((name, "environment") for name in environments(file))
        return
    if before and before[-1] == "--role":
        yield from ((name, "role") for name in ROLES)
        return
    name = command_of(before)
    if not name:
        if begun.startswith("-"):
            yield from ((option, "") for option in (*GLOBALS, "--version"))
        else:
            yield from ((each, SUMMARIES[each]) for _, rows in GROUPS for each, _, _ in rows)
        return
    from idi.cli.parser import parser_for

    yield from of_command(name, parser_for(name, command(name)), before, begun, file)


def of_command(
    name: str, parser: Parser, before: list[str], begun: str, file: str
) -> Iterator[tuple[str, str]]:
    nested = subcommands(parser)
    chosen = next((word for word in before if word in nested), "")
    inner = nested.get(chosen, parser)
    if nested and not chosen and not begun.startswith("-"):
        yield from ((each, "") for each in nested)
        return
    taking = {option: action for action in inner._actions for option in action.option_strings}
    last = taking.get(before[-1]) if before else None
    if last is not None and last.nargs is None and last.metavar is not None:
        if last.metavar in ("M", "MODULE"):
            yield from ((each, "module") for each in modules(file))
        elif last.metavar == "FILE":
            yield FILES, ""
        return
    if begun.startswith("-"):
        from argparse import SUPPRESS

        yield from (
            (option, action.help or "")
            for option, action in taking.items()
            if option.startswith("--") and action.help != SUPPRESS
        )
        return
    if name == "completion":
        yield from ((shell, "") for shell in SHELLS)
    elif name == "init":
        yield FILES, ""
    elif name == "scale":
        yield from ((f"{each}=", "module") for each in modules(file))
    elif name == "keys" and chosen == "rotate":
        from idi.cli.keys import NAMES

        yield from ((key, "key") for key in (*NAMES, "all"))
    elif name == "config" and positionals(before, name) == [chosen]:
        yield from ((each, "module") for each in modules(file))
    elif name in ("deploy", "restart", "logs") or (
        name in ("call", "run", "env") and not positionals(before, name)
    ):
        yield from ((each, "module") for each in modules(file))
        if name == "logs":
            yield from ((source, "IDI's own") for source in SOURCES)


def positionals(before: list[str], name: str) -> list[str]:
    return [word for word in before[before.index(name) + 1 :] if not word.startswith("-")]


def subcommands(parser: Parser) -> dict[str, Parser]:
    import argparse

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def command_of(before: list[str]) -> str:
    """The command among the words, if one was given."""
    takes = False
    for word in before:
        if takes:
            takes = False
        elif word in ("--file", "--env", "--role"):
            takes = True
        elif not word.startswith("-"):
            return word if word in MODULES else ""
    return ""


def option_value(words: Sequence[str], option: str) -> str:
    for at, word in enumerate(words):
        if word == option and at + 1 < len(words):
            return words[at + 1]
        if word.startswith(f"{option}="):
            return word[len(option) + 1 :]
    return ""


def modules(file: str) -> list[str]:
    return keys_below(file, "modules")


def environments(file: str) -> list[str]:
    return list(dict.fromkeys(["dev", *(keys_below(file, "environments") or ["staging", "production"])]))


def keys_below(file: str, section: str) -> list[str]:
    """The keys one step below a key of the first column; a glance, not a reading of YAML."""
    try:
        with open(os.path.expanduser(file), encoding="utf-8", errors="replace") as opened:
            lines = opened.read(1 << 20).splitlines()
    except OSError:
        return []
    found: list[str] = []
    inside, depth = False, ""
    for line in lines:
        if re.match(r"[^\s#]", line):
            inside, depth = line.split("#")[0].strip() == f"{section}:", ""
        elif inside and (key := re.match(r"( +)['\"]?([a-z][-a-z0-9]*)['\"]?\s*:(\s|$)", line)):
            depth = depth or key[1]
            if key[1] == depth:
                found.append(key[2])
    return found


COMMANDS = {
    "completion": Command(
        run,
        arguments,
        examples=(
            'eval "$(idi completion bash)"      # in ~/.bashrc',
            'eval "$(idi completion zsh)"       # in ~/.zshrc, after compinit',
            "idi completion fish | source       # in ~/.config/fish/config.fish",
        ),
        about="Print completion for a shell: commands, options, modules and environments of the declaration.",
    )
}
