"""The audit log of an environment on a cluster, read through its control and judged here.

Control hands out bytes: the signed head and the entries. Everything that is said of them is computed from them on this
machine; which key signs, and how far the log had come when it was looked at last, is remembered here, so that a log
that was made anew, or cut, does not pass for the old one. A key from elsewhere (`--key`) goes before what is
remembered.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idi.api.client import Unanswered
from idi.ledger import checkpoint, note
from idi.ledger.entry import Entry, decode
from idi.ledger.merkle import Frontier, leaf_hash
from idi.ledger.problem import Problem
from idi.ledger.proof_file import InclusionProof
from idi.ledger.proofs import prove_inclusion
from idi.ledger.verify import Finding, Report, Stored, verify
from idi.parts.clients.private_file import write_json
from idi.parts.errors import Refused

if TYPE_CHECKING:
    from idi.api.client import Client

PAGE = 200
MOST = 500_000
"""Entries that are read as a whole: some hundred megabytes of them."""
REMEMBERED = "audit.json"


@dataclass
class RemoteLog:
    """As `offline.AuditLog`, of the entries that the first answer's head covers."""

    client: Client
    head: bytes = b""
    size: int = 0
    origin: str = ""
    verifier: str = ""
    _entries: dict[int, bytes] = field(default_factory=dict)

    @staticmethod
    def opened(client: Client) -> RemoteLog:
        log = RemoteLog(client)
        first = log._ask(0, 0)
        log.head, log.size = first["head"], first["size"]
        log.origin, log.verifier = first["origin"], first["verifier"]
        return log

    def __enter__(self) -> RemoteLog:
        return self

    def __exit__(self, *_: object) -> None:
        """It holds nothing open."""

    def entry(self, index: int) -> Entry:
        found = decode(self.data(index))
        if isinstance(found, Problem):
            raise Refused(f"Entry {index} cannot be read: {found.text}.", "See what `idi audit verify` says.")
        return found

    def data(self, index: int) -> bytes:
        """Pages are looked at from the end, so the one that ends with it is asked for."""
        if index not in self._entries:
            self._fill(max(0, index + 1 - PAGE), index + 1)
        return self._entries[index]

    def prove(self, index: int) -> InclusionProof:
        nodes = self._nodes()
        path = prove_inclusion(index, self.size, lambda level, at: nodes[level, at])
        return InclusionProof(index, path, self.head)

    def verify(self, key: str, remembered: Path) -> Report:
        """Every entry, the tree over them, and the head; then remember how far it was good."""
        before = recall(remembered)
        trusted = note.parse_verifier(key or before.get("verifier", "")) if key or before else None
        if isinstance(trusted, Problem):
            return Report("", 0, None, (Finding(f"the key to verify with: {trusted.text}"),))
        known = bool(before) and key.strip() in ("", before.get("verifier", ""))
        kept = [before["head"].encode()] if known else []
        report = verify(self._stored(), trusted, kept)
        if not key and not before:
            words = "the key was taken from the log itself, and is remembered here for the next time"
            report = replace(report, remarks=(words, *report.remarks[1:]))
        if report.holds:
            write_json(remembered, {"verifier": self.verifier, "head": self.head.decode()})
        return report

    def _stored(self) -> Stored:
        self._whole()
        return Stored(
            origin=self.origin,
            verifier=self.verifier,
            previous=self.size,
            entries=((at, self._entries[at]) for at in range(self.size)),
            stored_hash=lambda _level, _at: None,
            hash_count=0,
            open_entries=(),
            outbox=(),
            documents=(),
            head=self.head,
            alone=True,
        )

    def _nodes(self) -> dict[tuple[int, int], bytes]:
        """The hashes of the tree over its bytes, which has to be the one that was signed."""
        self._whole()
        tree, nodes = Frontier(), dict[tuple[int, int], bytes]()
        for at in range(self.size):
            tree, completed = tree.append(leaf_hash(self._entries[at]))
            nodes |= {(one.level, one.position): one.hash for one in completed}
        key = note.parse_verifier(self.verifier)
        signed = key if isinstance(key, Problem) else checkpoint.open_head(self.head, [key], self.origin)
        if isinstance(signed, Problem) or signed.checkpoint.root != tree.root():
            raise Refused(
                "The entries do not have the root that the signed head names: nothing can be proved of them.",
                "See what `idi audit verify` says.",
            )
        return nodes

    def _whole(self) -> None:
        if self.size > MOST:
            raise Refused(
                f"The log has {self.size} entries; at most {MOST} are read through control.",
                "It is in the claim control-state, under control/state/journal.",
            )
        at = 0
        while at < self.size:
            if at not in self._entries:
                self._fill(at, min(self.size, at + PAGE))
            at += 1

    def _fill(self, start: int, end: int) -> None:
        while start < end:
            answer = self._ask(start, end - start)
            if not answer["entries"]:
                raise Unanswered(f"Control gave no entry {start}, and its signed head covers it.")
            for data in answer["entries"]:
                self._entries[start] = data
                start += 1

    def _ask(self, start: int, limit: int) -> dict[str, Any]:
        view = self.client.ask("GET", f"/v1/audit?start={start}&limit={limit}")
        try:
            return {
                "origin": str(view["origin"]),
                "verifier": str(view["verifier"]),
                "size": int(view["size"]),
                "head": base64.b64decode(view["head"], validate=True),
                "entries": [base64.b64decode(one, validate=True) for one in view["entries"]],
            }
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise Unanswered("What control answered is no page of its audit log.") from error


def recall(remembered: Path) -> Mapping[str, str]:
    """What was verified last; empty where nothing was."""
    try:
        found = json.loads(remembered.read_text(encoding="utf-8"))
        return {"verifier": str(found["verifier"]), "head": str(found["head"])}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused(
            f"What was verified last cannot be read: {remembered}.",
            "Set that file aside, and verify with --key.",
        ) from error
