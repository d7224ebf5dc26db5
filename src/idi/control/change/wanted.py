"""What is wanted, as it lies in the journal's documents: the declaration's text, the overlays, up or down."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from idi.parts.errors import Refused
from idi.parts.store.interface import Store
from idi.plan.recorded import DOCUMENT, VERSION, document_of, from_document
from idi.plan.types import Overlays


@dataclass(frozen=True, slots=True)
class Wanted:
    """`text` is the declaration as it was last applied, `file` its name as the user gave it, `keys_url` where an
    external issuer's keys were found then."""

    up: bool = False
    text: str = ""
    file: str = ""
    keys_url: str = ""
    overlays: Overlays = field(default_factory=Overlays)

    def documents(self) -> dict[str, bytes | None]:
        document = {
            "version": VERSION,
            "up": self.up,
            "text": self.text,
            "file": self.file,
            "keys_url": self.keys_url,
            **document_of(self.overlays),
        }
        return {DOCUMENT: json.dumps(document, sort_keys=True).encode()}

    @staticmethod
    async def recall(store: Store) -> Wanted:
        raw = await store.document(DOCUMENT)
        if raw is None:
            return Wanted()
        document = json.loads(raw)
        if document.get("version") != VERSION:
            raise Refused(
                f"What was wanted is written in version {document.get('version')}, this IDI reads {VERSION}.",
                "Use the IDI that wrote it, or set the state folder aside.",
            )
        return Wanted(
            up=document["up"],
            text=document["text"],
            file=document["file"],
            keys_url=document["keys_url"],
            overlays=from_document(document),
        )
