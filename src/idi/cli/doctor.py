"""`idi doctor`: every precondition, each with its remedy. It reads and asks; it changes nothing that stays."""

from __future__ import annotations

from collections.abc import Iterator

from idi.api.finding import Finding
from idi.cli.checks.cluster import Group, groups, on_cluster
from idi.cli.checks.machine import MACHINE
from idi.cli.checks.platform import PLATFORM
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED
from idi.cli.invocation import Invocation
from idi.cli.terminal.screen import Line
from idi.cli.terminal.words import plain, wrap

MARKS = {"ok": ("ok  ", "green"), "warn": ("warn", "yellow"), "fail": ("FAIL", "alarm")}

LAPTOP: tuple[Group, ...] = (
    ("This machine", MACHINE),
    ("This platform", PLATFORM),
)


def run(invocation: Invocation) -> int:
    screen = invocation.screen
    every: list[Finding] = []
    platform = on_cluster(invocation)
    for title, checks in groups(platform) if platform else LAPTOP:
        screen.out([(title, "bold")])
        for check in checks:
            for finding in check(invocation):
                every.append(finding)
                for line in lines(finding, screen.width):
                    screen.out(line)
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


def lines(finding: Finding, width: int) -> Iterator[Line]:
    """Its mark, name and detail, and the remedy below; long ones go on under where they began."""
    mark, style = MARKS[finding.state]
    indent = 21
    room = width and max(width - indent, 20)
    first, *more = wrap(plain(finding.detail), room, 9) or [""]
    yield [("  ", ""), (mark, style), (f"  {finding.name:<12} ", ""), (first, "")]
    for text in more:
        yield [(" " * indent, ""), (text, "")]
    for text in wrap(plain(finding.remedy), room, 9):
        yield [(" " * indent, ""), (text, "cyan")]


COMMANDS = {
    "doctor": Command(
        run,
        examples=(
            "idi doctor",
            "idi doctor --env production",
            "idi doctor --json | jq '.checks[] | select(.state != \"ok\")'",
        ),
        about="Check everything that a platform needs of this machine: Python, kernel, engines with version and\n"
        "licence, ports and who holds them, folders, limits, the declaration. Exit code 1 if one fails.\n"
        "For an environment on a cluster: kubectl and helm, the cluster's version, your rights there, storage, node\n"
        "pools, quotas, and in two pods that go again whether network policies hold. Each check has a minute\n"
        "at most, and all are made at once.",
    )
}
