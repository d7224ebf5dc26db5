"""`idi doctor`: every precondition, each with its remedy. It reads and asks; it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from idi.cli.checks_machine import MACHINE
from idi.cli.checks_platform import PLATFORM
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED
from idi.cli.finding import Finding
from idi.cli.invocation import Invocation
from idi.cli.words import plain

MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "alarm")}

GROUPS: tuple[tuple[str, tuple[Callable[[Invocation], Iterator[Finding]], ...]], ...] = (
    ("This machine", MACHINE),
    ("This platform", PLATFORM),
)


def run(invocation: Invocation) -> int:
    screen = invocation.screen
    every: list[Finding] = []
    for title, checks in GROUPS:
        screen.out([(title, "bold")])
        for check in checks:
            for finding in check(invocation):
                every.append(finding)
                mark, style = MARKS[finding.state]
                screen.out(
                    [("  ", ""), (mark, style), (f"  {finding.name:<12} ", ""), (plain(finding.detail), "")]
                )
                if finding.remedy:
                    screen.out([(" " * 21, ""), (plain(finding.remedy), "cyan")])
    failed = [finding for finding in every if finding.state == "fail"]
    warned = [finding for finding in every if finding.state == "warn"]
    if invocation.json:
        screen.document({"ok": not failed, "checks": [finding.document() for finding in every]})
    elif failed:
        screen.out([(f"{len(failed)} of {len(every)} checks failed.", "alarm")])
    else:
        more = f" {len(warned)} of them with a warning." if warned else ""
        screen.out([(f"All {len(every)} checks passed.", "green"), (more, "")])
    return FAILED if failed else DONE


COMMANDS = {
    "doctor": Command(
        run,
        examples=("idi doctor", "idi doctor --json | jq '.checks[] | select(.state != \"ok\")'"),
        about="Check everything that a platform needs of this machine: Python, kernel, engines with version and\n"
        "licence, ports and who holds them, folders, limits, the declaration. Exit code 1 if one fails.",
    )
}
