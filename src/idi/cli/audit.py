"""`idi audit`: who changed what, and the proof of it; from the journal's files, with or without control."""

from __future__ import annotations

from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, Failure, usage
from idi.cli.invocation import Invocation
from idi.cli.left import never_ran
from idi.cli.parser import count
from idi.cli.remote import is_remote
from idi.cli.terminal.screen import Line
from idi.cli.terminal.table import trimmed
from idi.cli.terminal.words import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from contextlib import AbstractContextManager
    from typing import Any

    from idi.api.audit import RemoteLog
    from idi.api.offline import AuditLog
    from idi.ledger.entry import Entry
    from idi.ledger.verify import Report

LIMIT = 20
PAGE_S = 30.0
MARGIN = 35  # where further lines of an entry begin, beside the name


def arguments(parser: ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    listing = what.add_parser("list", help="the newest changes, their steps and how they ended")
    listing.add_argument(
        "--limit",
        type=count,
        default=LIMIT,
        metavar="N",
        help=f"only the newest N lines, documents with --json (default: {LIMIT})",
    )
    listing.add_argument("--module", metavar="M", help="only entries about this module (or part)")
    verify = what.add_parser(
        "verify", help="check every entry, hash and signature; exit code 1 with each finding"
    )
    verify.add_argument("--key", default="", metavar="KEY", help="the log's public key that you trust")
    prove = what.add_parser("prove", help="a file that proves that an entry is in the log, for others' tools")
    prove.add_argument("index", type=index, metavar="N", help="number of the entry")
    prove.add_argument("--entry", action="store_true", help="print the entry's own bytes instead")
    from idi.cli.parser import add_globals

    for each in (listing, verify, prove):
        add_globals(each)


def index(value: str) -> int:
    from argparse import ArgumentTypeError

    if not value.isdigit():
        raise ArgumentTypeError(f"'{value}' is no number of an entry")
    return int(value)


def run(invocation: Invocation) -> int:
    from idi.api.offline import journal_folder

    if not is_remote(invocation) and not journal_folder(invocation.file, invocation.env).is_dir():
        raise never_ran(
            invocation,
            f"Nothing has been changed for {invocation.where} yet, so there is no audit log.",
            f"{invocation.command_line('up')} begins one.",
        )
    return {"list": show, "verify": verify, "prove": prove}[invocation.options.what](invocation)


def opened(invocation: Invocation) -> AbstractContextManager[AuditLog | RemoteLog]:
    """From the files here, or through control where they are on a cluster."""
    if is_remote(invocation):
        from idi.api.audit import RemoteLog

        return RemoteLog.opened(invocation.client(timeout=PAGE_S))
    from idi.api.offline import audit_log

    return audit_log(invocation.file, invocation.env)


def show(invocation: Invocation) -> int:
    screen, options = invocation.screen, invocation.options
    with opened(invocation) as log:
        entries, earlier = newest(log, options.limit, options.module or "", folded=not invocation.json)
        if invocation.json:
            for entry in reversed(entries):
                screen.document(as_document(entry), flush=False)
            if earlier:
                screen.err([(more(invocation, earlier), "dim")])
            return DONE
        if not entries:
            screen.out("No entries." if not options.module else f"No entries about {options.module}.")
            return DONE
        widest = max(3, *(len(plain(entry.actor.name)) for entry in entries))
        screen.out([(f"{'N':>5}  {'TIME (UTC)':<19}  {'WHO':<{widest}}  WHAT", "dim")])
        for entry in reversed(entries):
            announced = ""
            if entry.phase == "outcome" and entry.step is not None:
                announced = told(log.entry(entry.step))
            screen.tell(trimmed(line(entry, announced, widest)), indent=MARGIN + widest)
        if earlier:
            screen.tell(more(invocation, earlier))
        checks = f"{invocation.command_line('audit verify')} checks them"
        screen.out([(f"The log has {log.size} entries, signed; {checks}.", "dim")])
    return DONE


def newest(log: AuditLog | RemoteLog, limit: int, subject: str, *, folded: bool) -> tuple[list[Entry], int]:
    """The newest first, and how many come before them. `folded`: a step that has ended is told by its end, and
    its beginning neither shown nor counted."""
    found: list[Entry] = []
    ended: set[int | None] = set()
    earlier = 0
    for at in range(log.size - 1, -1, -1):
        if len(found) == limit and not subject:
            return found, at + 1
        entry = log.entry(at)
        if subject and entry.subject != subject:
            continue
        if folded and entry.phase == "intent" and entry.index in ended:
            continue
        if len(found) == limit:
            earlier += 1
            continue
        if entry.phase == "outcome":
            ended.add(entry.step)
        found.append(entry)
    return found, earlier


def more(invocation: Invocation, earlier: int) -> str:
    """How many are not shown, and what shows them."""
    options = invocation.options
    about = f" --module {options.module}" if options.module else ""
    number = "1 earlier entry is" if earlier == 1 else f"{earlier} earlier entries are"
    limit = options.limit + earlier
    return f"{number} not shown: {invocation.command_line(f'audit list{about} --limit {limit}')}"


def line(entry: Entry, announced: str, widest: int) -> Line:
    """`12  2026-01-01 10:00:00  anna  up` for a change, its steps indented below. `announced` is what the
    intent of an outcome said, `widest` the longest name of who did something."""
    when = entry.time[:19].replace("T", " ")
    head: Line = [
        (f"{entry.index:>5}  ", "dim"),
        (f"{when}  ", "dim"),
        (f"{plain(entry.actor.name):<{widest}}  ", "cyan"),
    ]
    detail = plain(told(entry))
    announced = plain(announced).removesuffix(f" {entry.subject}")  # `start openbao`
    subject = f"{plain(entry.subject)}  " if entry.subject else ""
    if entry.phase == "begin":
        return [*head, (f"{entry.action} ", "bold"), (detail, "")]
    if entry.phase == "finish":
        return [
            *head,
            ("  done" if entry.ok else "  failed", "green" if entry.ok else "red"),
            (f"  {detail}", ""),
        ]
    if entry.phase == "intent":
        return [*head, ("  … ", "dim"), (subject, "bold"), (detail or entry.action, "")]
    if entry.phase == "outcome":
        mark = ("  ✓ ", "green") if entry.ok else ("  ✗ ", "red")
        return [*head, mark, (subject, "bold"), ("; ".join(filter(None, (announced, detail))), "")]
    return [*head, (f"{entry.action} ", ""), (subject, "bold"), (detail, "")]


def told(entry: Entry) -> str:
    detail = entry.detail
    words = [str(detail[name]) for name in ("what", "why", "reason", "file") if detail.get(name)]
    rest = [
        spelled(name, value)
        for name, value in detail.items()
        if name not in ("what", "why", "reason", "file")
    ]
    return "; ".join(filter(None, [*words, *rest]))


def spelled(name: str, value: object) -> str:
    """`jede=3, cam=2` for what scale was asked, `jede, cam` for a list."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    if name == "module":
        return str(value)
    if name in ("set", "unset") and isinstance(value, list):
        return f"{name} {', '.join(map(str, value))}" if value else ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{name}={value}"


def as_document(entry: Entry) -> dict[str, Any]:
    import json

    from idi.ledger.entry import encode

    found: dict[str, Any] = json.loads(encode(entry))
    return found


def verified(invocation: Invocation) -> Report:
    """Judged here in any case."""
    if is_remote(invocation):
        from idi.api.audit import REMEMBERED, RemoteLog
        from idi.api.paths import paths_for

        log = RemoteLog.opened(invocation.client(timeout=PAGE_S))
        return log.verify(
            invocation.options.key, paths_for(invocation.file, invocation.env).state / REMEMBERED
        )
    from idi.api.offline import verify_audit_log

    return verify_audit_log(invocation.file, invocation.env, invocation.options.key)


def verify(invocation: Invocation) -> int:
    screen = invocation.screen
    report = verified(invocation)
    if invocation.json:
        screen.document(
            {
                "holds": report.holds,
                "origin": report.origin,
                "size": report.size,
                "root": report.signed.root.hex() if report.signed else None,
                "findings": [{"text": finding.text, "index": finding.index} for finding in report.findings],
                "remarks": list(report.remarks),
            }
        )
        return DONE if report.holds else FAILED
    for remark in report.remarks:
        screen.err([(remark, "dim")])
    if report.holds:
        screen.out([("The audit log holds", "green"), (f": {report.size} entries of {report.origin}.", "")])
        if report.signed:
            screen.out([(f"root {report.signed.root.hex()}", "dim")])
        return DONE
    for finding in report.findings:
        where = "" if finding.index is None else f"entry {finding.index}: "
        screen.out([("✗ ", "red"), (f"{where}{plain(finding.text)}", "")])
    number = len(report.findings)
    raise Failure(
        f"The audit log does not hold: {number} finding{'s' if number != 1 else ''}.",
        way_out="Keep the folder as it is, it is evidence; the newest good copy is in your last backup.",
    )


def prove(invocation: Invocation) -> int:
    wanted: int = invocation.options.index
    with opened(invocation) as log:
        if wanted >= log.size:
            raise usage(f"There is no entry {wanted}: the log has {log.size}.", "idi audit list names them.")
        if invocation.options.entry:
            import sys

            sys.stdout.flush()
            sys.stdout.buffer.write(log.data(wanted))
            sys.stdout.buffer.flush()
            return DONE
        proof = log.prove(wanted)
        if invocation.json:
            invocation.screen.document(
                {
                    "index": proof.index,
                    "path": [one.hex() for one in proof.path],
                    "head": proof.head.decode(),
                    "entry": as_document(log.entry(wanted)),
                }
            )
            return DONE
        invocation.screen.raw(proof.encode().decode())
    return DONE


COMMANDS = {
    "audit": Command(
        run,
        arguments,
        examples=(
            "idi audit list --module jede",
            "idi audit verify",
            "idi audit prove 12 > entry-12.tlog-proof",
        ),
        about="Who changed what, and the proof of it. On a laptop it reads the files alone, whether control runs or\n"
        "not. On a cluster control hands out the entries, to auditors and operators, and all is checked here.",
    )
}
