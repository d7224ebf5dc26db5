"""Helm, as a program: what this project asks of it, and what becomes of a release that was left half done.

The program and not a library: it is a child that is there for the second that it works, its faults cannot be ours,
and a person can do by hand what control does. Values go in by standard input and never by the command line, results
come out as JSON. A release is worked on by one at a time, a few of them at once, and every run has an end: at the
deadline (or when the caller is cancelled) Helm is asked to stop, so that it can still note a failure, and soon after
that it is killed.

Helm notes in the release that it is at work (`pending-*`) and takes that for a lock. Who is killed in between leaves it
locked for ever. So before each change the last revision is looked at: one that has been pending for longer than any
run of ours may take is put right first, a younger one is refused as busy (`recover` puts that right too, for whoever
knows that nobody is at work on it). It is taken back to the last revision that was deployed, or uninstalled
where there never was one. A failed revision is taken back in the same way: Helm compares the next one with the last
that succeeded, so what only the failed one had added would stay in the cluster and belong to nobody.

What keeps data is not taken back: an older program on what a newer one has written may destroy it. A pending revision
is completed instead, by a "rollback" to itself, and a failed one left to the next upgrade. What stays in the cluster
then is nothing that acts by itself, as long as both revisions keep data.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import idi
from idi.parts.clients.helm_errors import HelmError, refusal
from idi.parts.clients.helm_process import STOP_S, talk
from idi.parts.clients.program import runs
from idi.parts.errors import Bug, PartError

log = logging.getLogger(__name__)

VARIABLE = "IDI_HELM"
TIMEOUT_S = 120.0
MOST_AT_ONCE = 4
KEPT_REVISIONS = 10

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OWN = ("HELM_", "KUBECACHEDIR")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision of a release. `status` is Helm's word: deployed, superseded, failed, uninstalling, pending-install,
    pending-upgrade, pending-rollback. `manifest` is known where Helm just made it."""

    release: str
    number: int
    status: str
    updated: datetime
    description: str = ""
    manifest: str = ""

    @property
    def pending(self) -> bool:
        return self.status.startswith("pending-") or self.status == "uninstalling"


@dataclass(frozen=True, slots=True)
class Reach:
    """Which cluster: a context of a kubeconfig; nothing at all means the cluster that this pod is in."""

    kubeconfig: Path | None = None
    context: str = ""

    def flags(self) -> list[str]:
        named = [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        return [*named, f"--kube-context={self.context}"] if self.context else named


def document(values: Mapping[str, Any]) -> str:
    """Values as Helm reads them: JSON that is YAML too, which pairs of surrogates and raw line separators are not."""
    text = json.dumps(values, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def charts() -> Path:
    """The folder with the charts: inside the package where it was installed, at the root of a checkout."""
    package = Path(idi.__file__).parent
    for folder in (package / "charts", package.parents[1] / "charts"):
        if (folder / "module" / "Chart.yaml").is_file():
            return folder
    raise PartError("This installation carries no charts.", "Install it again.", retryable=False)


def find(environment: Mapping[str, str] = os.environ) -> Path:
    """The program: what IDI_HELM names, or `helm` on PATH."""
    named = environment.get(VARIABLE, "")
    found = named or shutil.which("helm", path=environment.get("PATH", ""))
    if not found:
        raise PartError(
            "There is no helm on PATH.",
            f"Install Helm 4 (https://helm.sh/docs/intro/install), or name the program in {VARIABLE}.",
            retryable=False,
        )
    if not runs(Path(found)):
        raise PartError(
            f"{VARIABLE} is {named}, which is no program.", "Correct it or unset it.", retryable=False
        )
    return Path(found).absolute()


class Helm:
    """`folder` is for what Helm remembers: nothing of a user's own Helm is read or written. Who has been pending for
    `abandoned_s` is at work no more; by default that is longer than any run of ours takes. `keeps` says whether what
    has these values keeps data."""

    def __init__(
        self,
        program: Path,
        reach: Reach,
        folder: Path,
        *,
        timeout_s: float = TIMEOUT_S,
        abandoned_s: float | None = None,
        keeps: Callable[[Mapping[str, Any]], bool] = lambda _values: False,
    ) -> None:
        self.program = program
        self.timeout_s = timeout_s
        self.abandoned_s = timeout_s + 2 * STOP_S if abandoned_s is None else abandoned_s
        self._keeps = keeps
        self._reach = reach
        self._folder = folder
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def upgrade(
        self,
        release: str,
        chart: Path,
        namespace: str,
        values: Mapping[str, Any],
        *,
        wait: bool = False,
        dry_run: Literal["", "server"] = "",
        way_made: bool = False,
    ) -> Revision:
        """Install it or bring it to these values, which are all it has: nothing of the last ones is kept.

        `wait` until everything is ready. A dry run is judged by the API server and changes nothing. `way_made`: by
        `make_way`, just before.
        """
        # The API server refuses fields that nobody knows. Helm would fetch the schemas of all kinds and look, too: most
        # of the time of a run.
        flags = ["--install", "--reset-values", "--disable-openapi-validation"]
        flags += [f"--history-max={KEPT_REVISIONS}", *_applying()]
        flags += ["--wait"] if wait else []
        flags += [f"--dry-run={dry_run}"] if dry_run else []
        async with self._alone(release, namespace):
            if not dry_run and not way_made:
                await self._make_way(release, namespace)
            said = await self._run(
                f"install {release}",
                *("upgrade", release, str(chart), "-f", "-", "--output=json", *flags),
                namespace=namespace,
                given=document(values),
            )
        return _revision(release, _json(said))

    async def make_way(self, release: str, namespace: str) -> None:
        """Put right what the next upgrade would stumble over, for whoever has to look at what is there in between."""
        async with self._alone(release, namespace):
            await self._make_way(release, namespace)

    async def uninstall(self, release: str, namespace: str, *, wait: bool = False) -> None:
        """Not there is good too. What a chart marks as kept stays."""
        async with self._alone(release, namespace):
            await self._uninstall(release, namespace, wait)

    async def rollback(self, release: str, namespace: str, to: int, *, wait: bool = False) -> None:
        """Back to what that revision was; it becomes a new one."""
        async with self._alone(release, namespace):
            await self._rollback(release, namespace, to, wait)

    async def recover(self, release: str, namespace: str) -> str:
        """Put right what was left half done, by whoever knows that nobody is at work on it. What was done, in words;
        empty where nothing had to be."""
        async with self._alone(release, namespace):
            return await self._put_right(release, namespace, 0.0)

    async def history(self, release: str, namespace: str) -> list[Revision]:
        """The revisions that are kept, oldest first; none where there is no such release."""
        try:
            said = await self._run(
                f"read the history of {release}",
                *("history", release, "--output=json", f"--max={KEPT_REVISIONS}"),
                namespace=namespace,
            )
        except HelmError as error:
            if error.kind == "missing":
                return []
            raise
        return [
            Revision(
                release,
                int(one["revision"]),
                str(one["status"]),
                _time(one["updated"]),
                str(one.get("description", "")),
            )
            for one in _json(said)
        ]

    async def status(self, release: str, namespace: str) -> Revision | None:
        """The last revision, if there is any."""
        found = await self.history(release, namespace)
        return found[-1] if found else None

    async def get_values(self, release: str, namespace: str, revision: int = 0) -> dict[str, Any]:
        """The values that were given; not what the chart adds."""
        flags = [f"--revision={revision}"] if revision else []
        said = await self._run(
            f"read the values of {release}",
            *("get", "values", release, "--output=json", *flags),
            namespace=namespace,
        )
        found = _json(said)
        return found if isinstance(found, dict) else {}

    async def template(self, release: str, chart: Path, namespace: str, values: Mapping[str, Any]) -> str:
        """What it would be, as YAML; no cluster is asked."""
        return await self._run(
            f"render {release}",
            *("template", release, str(chart), "-f", "-"),
            namespace=namespace,
            given=document(values),
        )

    async def _make_way(self, release: str, namespace: str) -> None:
        """Put right what the next revision would stumble over. Where the last good one can't be applied any more, going
        forward is the only way left, and Helm goes it from a failed revision."""
        try:
            done = await self._put_right(release, namespace, self.abandoned_s)
        except HelmError as error:
            if error.retryable:
                raise
            log.warning("%s", error)
        else:
            if done:
                log.warning("%s", done)

    async def _put_right(self, release: str, namespace: str, age_s: float) -> str:
        found = await self.history(release, namespace)
        if not found or not (found[-1].pending or found[-1].status == "failed"):
            return ""
        last = found[-1]
        since_s = (datetime.now(UTC) - last.updated).total_seconds()
        if last.pending and since_s < age_s:
            raise HelmError(
                f"Cannot install {release}: another Helm has been at work on it for {max(0.0, since_s):.0f} s "
                f"({last.status}).",
                f"Wait until it is done; if nobody is, it is put right after {age_s:.0f} s.",
                retryable=True,
                kind="busy",
            )
        good = [one.number for one in found if one.status == "deployed"]
        good = good or [one.number for one in found if one.status == "superseded"]
        if last.status == "uninstalling":
            await self._uninstall(release, namespace, wait=False)
            return f"{release} was being uninstalled; that is done now"
        if good and await self._only_onward(release, namespace, good[-1], last.number):
            if last.status == "failed":
                return ""
            await self._rollback(release, namespace, last.number, wait=False)
            return f"{release} was left {last.status} and is completed, for it keeps data"
        if good:
            await self._rollback(release, namespace, good[-1], wait=False)
            return f"{release} was left {last.status} and is back at its revision {good[-1]}"
        if last.pending:
            await self._uninstall(release, namespace, wait=False)
            return f"{release} was left {last.status} and never deployed before, so it is uninstalled"
        return ""  # failed at first: Helm takes it from there

    async def _only_onward(self, release: str, namespace: str, *revisions: int) -> bool:
        return all([self._keeps(await self.get_values(release, namespace, one)) for one in revisions])

    async def _uninstall(self, release: str, namespace: str, wait: bool) -> None:
        flags = ["--wait", "--cascade=foreground"] if wait else []
        await self._run(
            f"uninstall {release}", "uninstall", release, "--ignore-not-found", *flags, namespace=namespace
        )

    async def _rollback(self, release: str, namespace: str, to: int, wait: bool) -> None:
        flags = [f"--history-max={KEPT_REVISIONS}", *_applying(), *(["--wait"] if wait else [])]
        await self._run(
            f"take {release} back to its revision {to}",
            *("rollback", release, str(to), *flags),
            namespace=namespace,
        )

    @asynccontextmanager
    async def _alone(self, release: str, namespace: str) -> AsyncIterator[None]:
        lock = self._locks.setdefault((namespace, release), asyncio.Lock())
        async with lock:
            yield

    async def _run(self, doing: str, *words: str, namespace: str, given: str = "") -> str:
        """Its standard output; raises `HelmError`."""
        for name in (words[1] if words[0] != "get" else words[2], namespace):
            if not _NAME.fullmatch(name):
                raise Bug(f"{name!r} can be no release and no namespace.")
        timeout = [] if words[0] in ("template", "get", "history") else [f"--timeout={self.timeout_s:.0f}s"]
        arguments = [*words, f"--namespace={namespace}", *timeout, *self._reach.flags()]
        async with self._places:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                # Helm keeps its own deadline for each wait; this one is for Helm.
                async with asyncio.timeout(self.timeout_s + STOP_S):
                    code, said, complaint = await talk(
                        [str(self.program), *arguments], given, self._environment()
                    )
            except TimeoutError as error:
                raise HelmError(
                    f"Cannot {doing}: helm was not done after {self.timeout_s + STOP_S:.0f} s.",
                    "Try again; what it left half done is put right then.",
                    retryable=True,
                    kind="late",
                ) from error
        if code:
            raise refusal(doing, complaint)
        return said

    def _environment(self) -> dict[str, str]:
        """Ours without what would change Helm's manners, and with folders that nobody else uses."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        own = {f"HELM_{kind}_HOME": str(self._folder / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")}
        return {**kept, **own, "KUBECACHEDIR": str(self._folder / "kube"), "HELM_DRIVER": "secret"}


def _applying() -> list[str]:
    """Where somebody else set a field that the chart sets, the chart wins: a change by hand is no change to keep."""
    return ["--server-side=true", "--force-conflicts"]


def _json(said: str) -> Any:
    try:
        return json.loads(said)
    except ValueError as error:
        raise HelmError(
            "Helm's answer is no JSON.",
            "This project needs Helm 4: see `helm version`.",
            retryable=False,
            kind="other",
        ) from error


def _revision(release: str, told: Mapping[str, Any]) -> Revision:
    about = told["info"]
    return Revision(
        release,
        int(told["version"]),
        str(about["status"]),
        _time(about["last_deployed"]),
        str(about.get("description", "")),
        str(told.get("manifest", "")),
    )


def _time(text: str) -> datetime:
    """Helm writes nanoseconds, of which Python 3.11 takes six digits."""
    return datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
