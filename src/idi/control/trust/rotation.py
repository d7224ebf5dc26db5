"""`idi keys rotate`: each key of the platform takes another's place while everything goes on.

A rotation is a change like any other: its steps are in the journal before they happen, with the key's name and never
its value. Steps look at what is there and not at what was done before, so a rotation that was interrupted is
completed by the next. Whether it can be is asked before anything is begun.

Certificates: whoever shows a leaf of the new root meets only proxies that trust it, since everybody acknowledged both
roots first; and the former root goes when everybody shows a leaf of the new one. A proxy that is connected and gives
no answer stops the rotation there; one that is gone counts as lost, and gets what holds then when it comes back.
Connections that are open stay open until they are old enough (a third of a certificate's life), since nobody looks at
a certificate twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from idi.api.views import rfc3339
from idi.control.change.apply import StepReport
from idi.control.change.changes import Change
from idi.control.change.wanted import Wanted
from idi.control.trust.logins import Logins
from idi.parts.certificates.renewal import Renewal
from idi.parts.errors import Bug, IdiError, PartError, Refused
from idi.parts.gateway.interface import DataPlane
from idi.parts.secrets.openbao.reroot import Rerooting
from idi.parts.secrets.openbao.seal import SealRotation
from idi.parts.store.interface import JSON, Actor, Store
from idi.parts.store.interface import Step as JournalStep
from idi.plan.describe import Described

log = logging.getLogger(__name__)

SEAL, RECOVERY, OWN = "seal", "recovery", "control"
CERTIFICATES, TOKENS, BUS = "certificates", "tokens", "bus"
KEYS = (SEAL, RECOVERY, OWN, CERTIFICATES, TOKENS, BUS)
"""In the order in which `all` takes them."""
ACKNOWLEDGED_S = 10.0
ANOTHERS = (
    "put the next one into the Secret beside it, declare seal: {secret: NAME, key: NEXT, previous: FORMER}, run idi up "
    "and then idi keys rotate seal."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """`now`: every token that is out ends, after a leak of the key."""

    keys: tuple[str, ...]
    now: bool = False

    @property
    def alone(self) -> Asked | None:
        """What no instance starts with."""
        keys = tuple(key for key in self.keys if key != BUS)
        return replace(self, keys=keys) if keys else None


@dataclass(frozen=True, slots=True)
class Act:
    """`do` answers a line for whoever asked, where there is something to know."""

    key: str
    text: str
    do: Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Opened:
    """OpenBao, ready to have its keys rotated. `settle` ends what an interrupted rotation of the recovery key left."""

    seal: SealRotation
    root: Rerooting
    settle: Callable[[], Awaitable[None]]
    recovery: Callable[[], Awaitable[None]]
    own: Callable[[], Awaitable[None]]


class Vault(Protocol):
    """OpenBao, as far as its keys are concerned: `rotating` raises `PartError` while it does not answer."""

    renewal: Renewal | None

    def rotating(self) -> AbstractAsyncContextManager[Opened]: ...


class Ring(Protocol):
    """The embedded issuer's keys."""

    def rotate(self) -> float: ...

    def replace(self) -> None: ...

    @property
    def waiting_until(self) -> float: ...


def asked(keys: Sequence[str], now: bool, external: str, events: bool) -> Asked:
    """What is to be rotated; `external` is another issuer's URL, `events`: there is a bus. Raises `Refused`."""
    wanted = tuple(key for key in KEYS if key in keys or "all" in keys)
    for key in keys:
        if key not in (*KEYS, "all"):
            raise Refused(f"No key is called '{key}'.", f"There are {', '.join(KEYS)}, or all.")
    if now and wanted != (TOKENS,):
        raise Refused("Only tokens can be replaced at once.", "idi keys rotate tokens --now")
    if external and TOKENS in keys:
        raise Refused(
            f"Tokens of this environment come from {external}, so their keys are not here.",
            "Rotate them at that issuer; the gateway reads its keys again by itself.",
        )
    if not events and BUS in keys:
        raise Refused("Nothing is published or handled, so there is no bus.")
    if not events:
        wanted = tuple(key for key in wanted if key != BUS)
    if external:
        wanted = tuple(key for key in wanted if key != TOKENS)
    if not wanted:
        raise Refused("No key was named.", f"There are {', '.join(KEYS)}, or all.")
    return Asked(wanted, now)


@dataclass(slots=True)
class Rotation:
    """`authority`, `tokens` and `logins` have the keys, `plane` says who has acknowledged what."""

    journal: Store
    authority: Vault
    tokens: Ring
    plane: DataPlane
    logins: Logins

    async def apply(self, change: Change, actor: Actor, wanted: Asked, before: Wanted) -> Wanted | None:
        """Everything that no instance starts with; what is wanted then, for instances to follow. None where the change
        has ended."""
        if wanted.alone is not None and not await self.run(change, actor, wanted.alone):
            return None
        if BUS not in wanted.keys:
            change.done(True)
            return None
        return self.logins.another(before)

    async def run(self, change: Change, actor: Actor, wanted: Asked) -> bool:
        """All of it; False where a step failed, which ends the change. Raises what refuses it, before anything is
        begun."""
        async with self._acts(wanted) as acts:
            detail: dict[str, JSON] = {"keys": [*wanted.keys], "now": wanted.now}
            change_id = await self.journal.begin(actor, "keys", detail, subject=" ".join(wanted.keys))
            change.tell({"type": "started", "change": int(change_id)})
            failed = ""
            way_out = ""
            for act in acts:
                begun = time.monotonic()
                described = Described(act.key, "rotate", "~", act.text, "")
                change.step(StepReport(described, "running"))
                error = await self._do(change_id, act, change)
                seconds = time.monotonic() - begun
                if error is None:
                    change.step(StepReport(described, "done", seconds))
                    continue
                failed, way_out = f"{act.key}: {error.message}", error.way_out
                change.step(StepReport(described, "failed", seconds, error.message, error.way_out))
                break
            await self.journal.finish(change_id, not failed, failed[:2000])
        if failed:
            change.done(
                False,
                failed,
                f"{way_out} What is begun holds as it is; run it again to complete it.".lstrip(),
            )
        return not failed

    async def _do(self, change_id: object, act: Act, change: Change) -> IdiError | None:
        step = JournalStep("rotate", act.key, {"what": act.text})
        try:
            [step_id] = await self.journal.intend(change_id, [step])  # type: ignore[arg-type]
        except IdiError as error:
            return error
        failure: IdiError | None = None
        try:
            if told := await act.do():
                change.message(told)
        except IdiError as error:
            failure = error
        except Exception as error:  # ours: recorded and told
            log.exception("a step failed by a bug: %s", act.text)
            failure = Bug(f"{type(error).__name__}: {error}.", "This is a bug of IDI; see idi logs control.")
        try:
            reason: dict[str, JSON] = {} if failure is None else {"reason": failure.message[:2000]}
            await self.journal.outcome(step_id, failure is None, reason)
        except IdiError as error:
            failure = failure or error
        return failure

    @asynccontextmanager
    async def _acts(self, wanted: Asked) -> AsyncIterator[list[Act]]:
        if wanted.keys == (TOKENS,):
            yield self._of_tokens(wanted.now)
            return
        async with self.authority.rotating() as opened:
            await opened.settle()
            opened.seal.check()
            if wanted.keys == (SEAL,) and opened.seal.next_is_anothers:
                raise Refused(
                    "The seal key is in a Secret of yours, and so the next one has to be.", ANOTHERS
                )

            async def recovery() -> str:
                await opened.recovery()
                return "Copy the new recovery key to where you keep a copy of the former, which is no good any more."

            of: dict[str, list[Act]] = {
                SEAL: self._of_seal(opened.seal),
                RECOVERY: [Act(RECOVERY, "make another, show it to OpenBao", recovery)],
                OWN: [Act(OWN, "make another credential, destroy the former", silent(opened.own))],
                CERTIFICATES: self._of_certificates(opened.root),
                TOKENS: self._of_tokens(wanted.now),
            }
            yield [act for key in wanted.keys for act in of[key]]

    def _of_seal(self, seal: SealRotation) -> list[Act]:
        async def make() -> str:
            seal.make()
            return ""

        async def take() -> str:
            kept = seal.take()
            if kept is None:
                return (
                    "The seal key that is declared opens the store alone. Take previous out of the declaration, if it "
                    "is there; backups that were made before need that key."
                )
            return (
                f"Copy the new seal key to where you keep a copy of the former. That one stays in {kept}: "
                "it opens backups that were made before, and nothing newer."
            )

        async def left() -> str:
            return f"The seal key stays as it is: {ANOTHERS}"

        if seal.next_is_anothers:
            return [Act(SEAL, "leave it to whoever gives it", left)]
        return [
            Act(SEAL, "make the next key", make),
            Act(SEAL, "open OpenBao with both, close it with the next", silent(seal.rewrap)),
            Act(SEAL, "open OpenBao with the next alone", silent(seal.prove)),
            Act(SEAL, "set the former aside", take),
        ]

    def _of_certificates(self, root: Rerooting) -> list[Act]:
        async def trust() -> str:
            await self._renewal().trust()
            return await self._acknowledged()

        async def reissue() -> str:
            failed = await self._renewal().reissue()
            if failed:
                first, why = next(iter(failed.items()))
                raise PartError(
                    f"{listed(failed)} got no certificate of the new root: {first}: {why.rstrip('.')}.",
                    "The former root stays trusted meanwhile.",
                )
            return await self._acknowledged()

        return [
            Act(CERTIFICATES, "add a new root", silent(root.add)),
            Act(CERTIFICATES, "let everybody trust both", trust),
            Act(CERTIFICATES, "sign with the new one", silent(root.switch)),
            Act(CERTIFICATES, "replace every certificate", reissue),
            Act(CERTIFICATES, "remove the former root", silent(root.forget)),
            Act(CERTIFICATES, "let everybody trust the new one alone", trust),
        ]

    def _of_tokens(self, now: bool) -> list[Act]:
        async def replace() -> str:
            self.tokens.replace()
            return "Every token that was out has ended: clients ask for new ones."

        async def rotate() -> str:
            at = self.tokens.waiting_until or self.tokens.rotate()
            return f"The new key is published and signs from {rfc3339(at)} on; tokens that are out stay good."

        if now:
            return [Act(TOKENS, "replace the signing key at once", replace)]
        return [Act(TOKENS, "publish another signing key", rotate)]

    def _renewal(self) -> Renewal:
        if self.authority.renewal is None:
            raise PartError("OpenBao has just been stopped.")
        return self.authority.renewal

    async def _acknowledged(self) -> str:
        """Who is connected and does not answer would be cut off by the next step; who is gone learns it when it is
        back."""
        result = await self.plane.barrier(ACKNOWLEDGED_S)
        connected = self.plane.connected()
        if slow := [node for node in result.lost if connected.get(node)]:
            raise PartError(
                f"No word from {listed(slow)} in {ACKNOWLEDGED_S:g} s: further steps wait for that.",
                "Both roots stay trusted; run it again.",
            )
        if not result.lost:
            return ""
        return f"No word from {listed(result.lost)}: counted as lost, and told when it is back."


def silent(work: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[str]]:
    async def done() -> str:
        await work()
        return ""

    return done


def listed(names: Iterable[str]) -> str:
    """The first few by name."""
    every = sorted(names)
    return ", ".join(every[:5]) + (f" and {len(every) - 5} more" if len(every) > 5 else "")
