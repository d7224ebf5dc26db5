"""Secrets as control keeps them: set by a person, given to the instances that declare them.

Three places have each its own part of it. OpenBao has the values. What is wanted has the version that holds of
each path, so that a status or a plan asks nobody and a revision is addressed by it. The journal has who set
what when. They are written in the order journal, OpenBao, wanted; so after a crash in between, the versions
that hold are those that run, and at most a version lies in OpenBao that nobody uses. Whoever asked has got no
answer and asks again.

A value is in control's memory while it is being set or given, and in no document, plan, message or log.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace

from idi.api.types import SecretRequest, SecretsView, SecretView
from idi.api.views import rfc3339
from idi.control.change.wanted import Wanted
from idi.declaration.names import SECRET
from idi.declaration.types import ModuleName, Platform
from idi.parts.errors import IdiError, PartError, Refused
from idi.parts.secrets.interface import LARGEST_BYTES, SecretStore
from idi.parts.store.interface import Actor, ChangeId, Step, Store
from idi.parts.targets.interface import Unsupplied, text_of
from idi.plan.types import KeptSecret
from idi.world.types import RevisionSpec

OWN = "idi/"
"""Paths of what the platform derives itself."""

RANDOM_BYTES = 32
GIVES_S = 10.0


@dataclass(frozen=True, slots=True)
class NewSecret:
    """`value` None: to be made here."""

    path: str
    value: bytes | None = field(repr=False)
    users: tuple[ModuleName, ...]


@dataclass(slots=True)
class Secrets:
    """`vault` gives the store, after waiting for it for a while; raises `PartError` while it does not answer. `own`
    gives what the platform derives itself; `kept` are those that are set now."""

    journal: Store
    vault: Callable[[], Awaitable[SecretStore]]
    own: Callable[[ModuleName, str, int], str]
    kept: Callable[[], Mapping[str, KeptSecret]] = dict
    clock: Callable[[], float] = time.time

    async def supply(self, spec: RevisionSpec, paths: Collection[str]) -> dict[str, bytes]:
        """The values for an instance that is about to start, in its revision's versions."""
        try:
            found = {
                path: self.own(spec.module, path, spec.secrets.get(path, 0)).encode()
                for path in paths
                if path.startswith(OWN)
            }
        except IdiError as error:
            raise Unsupplied(error.message.rstrip("."), error.way_out, retryable=False) from error
        stored = [path for path in sorted(paths) if path not in found]
        waiting = [path for path in stored if not spec.secrets.get(path)]
        if waiting:
            unset = next((path for path in waiting if path not in self.kept()), waiting[0])
            raise Unsupplied(f"secret {unset} is not set; idi secrets set {unset}", retryable=False)
        if stored:
            try:
                async with asyncio.timeout(GIVES_S):  # whoever ends the instance meanwhile waits for this
                    vault = await self.vault()
                    values = await asyncio.gather(*(vault.get(path, spec.secrets[path]) for path in stored))
            except TimeoutError:
                raise Unsupplied(
                    f"its secrets cannot be had: OpenBao gives none within {GIVES_S:g} s"
                ) from None
            except PartError as error:
                raise Unsupplied(f"its secrets cannot be had: {error.message.rstrip('.')}") from error
            for path, value in zip(stored, values, strict=True):
                if value is None:
                    gone = f"secret {path} has no version {spec.secrets[path]} any more"
                    raise Unsupplied(f"{gone}; idi secrets set {path}", retryable=False)
                found[path] = value
        return found

    async def keep(self, new: NewSecret, wanted: Wanted, actor: Actor) -> tuple[ChangeId, Wanted]:
        """Begin the change, write the value, and say which version holds from now on."""
        value = secrets.token_urlsafe(RANDOM_BYTES).encode() if new.value is None else new.value
        vault = await self.vault()
        before = await vault.version(new.path)
        action = "rotate" if new.path in wanted.overlays.secrets else "set"
        change = await self.journal.begin(
            actor, "secrets", {"version": before + 1, "modules": [*new.users]}, subject=new.path
        )
        try:
            [step] = await self.journal.intend(change, [Step(action, new.path, {"version": before + 1})])
            try:
                version = await vault.put(new.path, value, before)
            except IdiError as error:
                await self.journal.outcome(step, False, {"reason": error.message})
                raise
            kept = {**wanted.overlays.secrets, new.path: KeptSecret(version, self.clock())}
            after = replace(wanted, overlays=replace(wanted.overlays, secrets=kept))
            await self.journal.outcome(step, True, {"version": version}, documents=after.documents())
        except IdiError as error:
            await self.journal.finish(change, False, error.message)
            raise
        return change, after


def asked_secret(request: SecretRequest, wanted: Wanted, platform: Platform) -> NewSecret:
    """What a request asks for; raises `Refused` where it cannot be. Its message never has the value."""
    path, users = request["path"], users_of(platform)
    if not SECRET.fits(path):
        raise Refused(SECRET.wrong(path, "The path"))
    if path.startswith(OWN):
        raise Refused(f"Paths below {OWN} are the platform's own.", "Choose another path.")
    value: bytes | None = None
    if "value" in request:
        value = decoded(request["value"])
    elif path not in wanted.overlays.secrets:
        raise Refused(
            f"The secret {path} is not set, so there is nothing to rotate.", f"idi secrets set {path}"
        )
    mine = users.get(path, ())
    if value is not None and any(as_variable(platform, name, path) for name in mine):
        check_text(path, value)
    return NewSecret(path, value, mine)


def decoded(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refused("The value is not base64.") from None
    if not value:
        raise Refused("The value is empty.", "A secret has at least one byte.")
    if len(value) > LARGEST_BYTES:
        raise Refused(f"The value has {len(value)} bytes; {LARGEST_BYTES} is the most.")
    return value


def able(platform: Platform, wanted: Wanted, new: NewSecret) -> list[ModuleName]:
    """Which of its users can start with it: the others would only fail once more."""
    kept = {**wanted.overlays.secrets, new.path: KeptSecret(0, 0.0)}
    missing = still_missing(platform, kept, new.users)
    return [name for name in new.users if name not in missing]


def still_missing(
    platform: Platform, kept: Mapping[str, KeptSecret], names: Collection[ModuleName]
) -> dict[ModuleName, list[str]]:
    """Which of these modules cannot start, and what they miss."""
    found = {
        name: [path for path in sorted(set(platform.modules[name].secrets.values())) if path not in kept]
        for name in names
    }
    return {name: missing for name, missing in found.items() if missing}


def check_text(path: str, value: bytes) -> None:
    if text_of(value) is None:
        raise Refused(
            f"{path} is given to a module as a variable, and this value is no text.",
            "Declare it as: file, or set a text.",
        )


def as_variable(platform: Platform, name: ModuleName, path: str) -> bool:
    module = platform.modules[name]
    return any(p == path and v not in module.secret_files for v, p in module.secrets.items())


def users_of(platform: Platform) -> Mapping[str, tuple[ModuleName, ...]]:
    """Which modules declare each path."""
    found: dict[str, tuple[ModuleName, ...]] = {}
    for name, module in platform.modules.items():
        for path in sorted(set(module.secrets.values())):
            found[path] = (*found.get(path, ()), name)
    return found


def secrets_view(platform: Platform | None, wanted: Wanted) -> SecretsView:
    """Every path that is kept or declared; asks nobody."""
    kept = wanted.overlays.secrets
    users = users_of(platform) if platform is not None else {}
    views: list[SecretView] = [
        {
            "path": path,
            "version": kept[path].version if path in kept else 0,
            "since": rfc3339(kept[path].since) if path in kept else None,
            "modules": [*users.get(path, ())],
            "missing": path not in kept,
        }
        for path in sorted({*kept, *users})
        if not path.startswith(OWN)
    ]
    return {"secrets": views}
