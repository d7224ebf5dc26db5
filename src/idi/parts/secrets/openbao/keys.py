"""The key folder: what opens the store and what signs in to it, outside the checkout and the state folder.

    seal.key       32 random bytes: without them the store cannot be opened by anyone
    seal-next.key  the one that takes its place, while it is being rotated (`seal`)
    seal-until-TIME.key  a former one: it opens backups that were made before that time, and nothing newer
    recovery.json  the recovery key: makes a root token when the store's set-up must change
    control.json   the control process's own credential: signs leaves, keeps and reads secrets
    set-up.json    which set-up of which store is complete (no secret)

The seal key may be somebody else's to keep: a file that is `given`, which is read and never written (on a cluster a
Secret of the user's, mounted). Then the folder has none, but for the one that the store was closed with before. That
one, or the file `previous.key` beside the given one, is what the given one takes the place of, as `seal-next.key`
does here.

The user owns the folder. Each file is 0600 from its first byte, written beside and renamed, and on disk
before whatever depends on it happens. A recovery key of an earlier store is set aside, never overwritten:
a backup of that store may still need it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from idi.parts.clients import private_file
from idi.parts.errors import PartError

if TYPE_CHECKING:  # what starts it needs no client
    from idi.parts.clients.openbao import AppRole


PREVIOUS = "previous.key"
"""Beside the given seal key: the one before it, as long as the store may be closed with that."""
GIVE = "Put 32 random bytes into the Secret that is declared under seal, then run idi up."


@dataclass(frozen=True, slots=True)
class Recovery:
    keys: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class SetUp:
    """`digest` is that of everything the set-up configures."""

    cluster_id: str
    digest: str


class KeyFolder:
    """`given` is the seal key where it does not lie in the folder."""

    def __init__(self, path: Path, given: Path | None = None) -> None:
        self.path = path
        self.given = given
        self._own = path / "seal.key"
        self._recovery = path / "recovery.json"
        self._next_recovery = path / "recovery-next.json"
        self._control = path / "control.json"
        self._set_up = path / "set-up.json"
        self._initialising = path / "initialising"

    def __repr__(self) -> str:
        return f"KeyFolder({self.path})"

    def make(self) -> None:
        private_file.private_folder(self.path)

    @property
    def seal_key(self) -> Path:
        """The one that holds, until the next has taken its place."""
        if self.given is None:
            return self._own
        return self._before_given or self.given

    @property
    def next_seal_key(self) -> Path:
        given = self.given if self._before_given else None
        return given or self.path / "seal-next.key"

    @property
    def _before_given(self) -> Path | None:
        """The key that the given one takes the place of."""
        if self.given is None or not self.given.exists():
            return None
        for path in (self.given.with_name(PREVIOUS), self._own):
            if path.exists() and path.read_bytes() != self.given.read_bytes():
                return path
        return None

    def make_seal_key(self) -> bool:
        """True when there was none. Where one is given, a copy of it in the folder goes."""
        for path in filter(None, (self.given, self.seal_key)):
            if path.exists() and path.stat().st_size != 32:
                raise PartError(
                    f"The seal key {path} is not 32 bytes long.",
                    "Put the right one back; the store cannot be opened with any other.",
                    retryable=False,
                )
        if self.given is not None:
            if not self.given.exists():
                raise PartError(f"The seal key {self.given} is not there.", GIVE, retryable=False)
            if self._own.exists() and self._before_given != self._own:
                self._drop_own()
            return False
        if self._own.exists():
            return False
        private_file.write(self._own, secrets.token_bytes(32))
        return True

    def _drop_own(self) -> None:
        self._own.unlink(missing_ok=True)
        private_file.sync_folder(self.path)

    # --- another seal key ---

    @property
    def next_is_anothers(self) -> bool:
        """Whether there is no next one, and only whoever gives the key can make it."""
        return self.given is not None and self._before_given is None

    def make_next_seal_key(self) -> None:
        """Idempotent. From here on a start gives OpenBao both, so that the store opens whichever it was closed
        with."""
        if self.next_is_anothers:
            raise PartError("The seal key is given, and so the next one has to be.", GIVE, retryable=False)
        if not self.next_seal_key.exists():
            private_file.write(self.next_seal_key, secrets.token_bytes(32))

    def take_next_seal_key(self, at: float) -> Path | None:
        """The next one is the seal key; returns where the former lies now. Repeated after a crash in between it
        leaves one copy. Where the next one is given none is left: a volume that holds the former and what was written
        with it would need no other key, and copies of the volume from before have it themselves."""
        if self.given is not None:
            self._drop_own()
            return None
        former = self.seal_key.read_bytes()
        kept = next((path for path in self.former_seal_keys() if path.read_bytes() == former), None)
        if kept is None:
            kept = self.path / f"seal-until-{datetime.fromtimestamp(at, UTC):%Y%m%dT%H%M%SZ}.key"
            private_file.write(kept, former)
        self.next_seal_key.rename(self._own)
        private_file.sync_folder(self.path)
        return kept

    def former_seal_keys(self) -> list[Path]:
        return sorted(self.path.glob("seal-until-*.key"))

    # --- an initialisation whose answer may be lost ---

    def begin_initialising(self) -> None:
        """Before the store is made: from here until `keep_recovery`, a store may exist that nobody holds
        the recovery key of. It holds nothing yet, so it can be made anew."""
        if self._recovery.exists():
            number = 1
            while (aside := self.path / f"recovery-{number}.json").exists():
                number += 1
            self._recovery.rename(aside)
        self._set_up.unlink(missing_ok=True)
        private_file.write(self._initialising, b"")

    def keep_recovery(self, recovery: Recovery) -> None:
        private_file.write_json(self._recovery, asdict(recovery))
        self._initialising.unlink(missing_ok=True)
        private_file.sync_folder(self.path)

    def answer_was_lost(self) -> bool:
        return self._initialising.exists() and not self._recovery.exists()

    def recovery(self) -> Recovery | None:
        return _recovery_in(self._recovery)

    # --- another recovery key ---

    def keep_next_recovery(self, recovery: Recovery) -> None:
        """Beside the one that holds until OpenBao has been shown this one."""
        private_file.write_json(self._next_recovery, asdict(recovery))

    def next_recovery(self) -> Recovery | None:
        return _recovery_in(self._next_recovery)

    def take_next_recovery(self) -> None:
        self._next_recovery.rename(self._recovery)
        private_file.sync_folder(self.path)

    def drop_next_recovery(self) -> None:
        self._next_recovery.unlink(missing_ok=True)

    def need_recovery(self, what: str) -> Recovery:
        found = self.recovery()
        if found is None or not found.keys:
            raise PartError(
                f"{what} needs the recovery key, and {self._recovery} is not there.",
                "Put it back from your copy; afterwards it may be taken away again.",
                retryable=False,
            )
        return found

    @property
    def control_path(self) -> Path:
        return self._control

    @property
    def recovery_path(self) -> Path:
        return self._recovery

    # --- control's own ---

    def keep_control(self, credential: AppRole) -> None:
        private_file.write_json(
            self._control, {"role_id": credential.role_id, "secret_id": credential.secret_id}
        )

    def control(self) -> AppRole | None:
        from idi.parts.clients.openbao import AppRole

        found = private_file.read_json(self._control)
        if found is None or not found.get("role_id") or not found.get("secret_id"):
            return None
        return AppRole(str(found["role_id"]), str(found["secret_id"]))

    def keep_set_up(self, done: SetUp) -> None:
        private_file.write_json(self._set_up, asdict(done))

    def set_up(self) -> SetUp | None:
        found = private_file.read_json(self._set_up)
        return (
            None if found is None else SetUp(str(found.get("cluster_id", "")), str(found.get("digest", "")))
        )


def _recovery_in(path: Path) -> Recovery | None:
    found = private_file.read_json(path)
    if found is None:
        return None
    keys = found.get("keys")
    return Recovery(tuple(map(str, keys)) if isinstance(keys, list) else ())


def key_id(key: Path) -> str:
    """The name under which OpenBao knows a seal key: made from the key, so that it needs no record of its own."""
    return f"idi-{hashlib.sha256(b'idi seal key ' + key.read_bytes()).hexdigest()[:12]}"
