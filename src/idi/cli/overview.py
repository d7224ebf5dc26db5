"""`idi --help`: every command on one screen, without building a parser."""

from __future__ import annotations

from idi.cli.commands import GROUPS

GLOBALS = (
    ("--env NAME", "environment (default: dev)"),
    ("--file FILE", "the declaration (default: platform.yaml)"),
    ("--role NAME", "on a cluster: act in this role (default: the highest you have)"),
    ("--json", "JSON on stdout, nothing else there; an error is JSON on stderr"),
    ("--debug", "show a fault's traceback"),
    ("--help", "what a command takes, with an example"),
)


def overview() -> str:
    lines = ["idi: one declaration for a laptop and a cluster", "", "  idi COMMAND [OPTIONS]", ""]
    for title, rows in GROUPS:
        lines.append(title)
        lines.extend(f"  {name:<12}{summary}" for name, _, summary in rows)
        lines.append("")
    lines.append("Every command takes")
    lines.extend(f"  {name:<12}{summary}" for name, summary in GLOBALS)
    lines += [
        "",
        "Exit codes: 0 done, 1 failed, 2 wrong usage or invalid declaration,",
        "            3 not running, 130 interrupted",
        "",
        "Start: idi init && idi up",
    ]
    return "\n".join(lines) + "\n"
