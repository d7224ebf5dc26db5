"""What can be read without control: logs and the journal, which are files, also when control is dead."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from idi.api.place import place
from idi.ledger.entry import Entry
from idi.ledger.proof_file import InclusionProof
from idi.ledger.verify import Report
from idi.parts.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from idi.parts.store.sqlite.check import Log
    from idi.parts.targets.local.output import Reader
    from idi.parts.targets.printed import LogLine as LogLine
    from idi.plan.types import Overlays

File = str | os.PathLike[str]


def log_folder(file: File, environment: str) -> Path:
    return Path(place(file, environment)[2]) / "logs"


def journal_folder(file: File, environment: str) -> Path:
    return Path(place(file, environment)[2]) / "journal"


def log_sources(file: File, environment: str) -> Mapping[str, str]:
    """Everything that ever printed: source (`jede-1`) to module (`jede`, or '' for IDI's own parts)."""
    from idi.parts.targets.local.output import Logs, module_of

    folder = log_folder(file, environment)
    return {name: module_of(name) for name in Logs(folder).sources()} if folder.is_dir() else {}


class Chosen(Collection[str]):
    """Sources by name or by module, also those that do not exist yet (an instance started later)."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)

    def __contains__(self, source: object) -> bool:
        from idi.parts.targets.local.output import module_of

        module = module_of(str(source))
        return source in self._names or module in self._names or (not self._names and bool(module))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def log_reader(file: File, environment: str, names: Collection[str], grep: re.Pattern[str] | None) -> Reader:
    """The lines of these modules, instances or parts; of every module where none is named."""
    from idi.parts.targets.local.output import Logs

    return Logs(log_folder(file, environment)).reader(Chosen(names), grep)


@contextmanager
def audit_log(file: File, environment: str) -> Iterator[AuditLog]:
    """The signed journal of a platform, read from one snapshot."""
    from idi.parts.store.sqlite.check import open_log

    with open_log(journal_folder(file, environment)) as log:
        yield AuditLog(log)


class AuditLog:
    """Its entries and the proofs of them."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.size = log.size
        self.head = log.head

    def entry(self, index: int) -> Entry:
        from idi.ledger.entry import decode
        from idi.ledger.problem import Problem

        found = decode(self._log.read_entry(index))
        if isinstance(found, Problem):
            raise Refused(f"Entry {index} cannot be read: {found.text}.", "See what `idi audit verify` says.")
        return found

    def data(self, index: int) -> bytes:
        return self._log.read_entry(index)

    def prove(self, index: int) -> InclusionProof:
        from idi.parts.store.sqlite.check import prove

        return prove(self._log, index)


def recorded_overlays(file: File, environment: str) -> Overlays:
    """What was recorded on top of the file for the next `idi up`; raises `Refused` where it cannot be read."""
    from idi.parts.store.sqlite.check import read_document
    from idi.plan.recorded import DOCUMENT, VERSION, from_document
    from idi.plan.types import Overlays

    folder = journal_folder(file, environment)
    raw = read_document(folder, DOCUMENT)
    if raw is None:
        return Overlays()
    document = json.loads(raw)
    if document.get("version") != VERSION:
        raise Refused(
            f"What was wanted is in another version's words in {folder}.", "Use the IDI that wrote it."
        )
    return from_document(document)


def verify_audit_log(file: File, environment: str, verifier: str = "") -> Report:
    """Every check of the journal; what is wrong is a finding, never an exception."""
    from idi.parts.store.sqlite.check import verify_journal

    keys = Path(place(file, environment)[4])
    return verify_journal(
        journal_folder(file, environment), verifier=verifier, key_dir=keys if keys.is_dir() else None
    )
