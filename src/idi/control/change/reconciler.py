"""From what is asked for to the end of it: desired state, plan, journal, effect.

Level-based: whatever is asked for becomes desired state (declaration plus overlays, written with the
change's first entry), the plan is the difference to the world as it is, and applying it is the same code
for `up`, `scale`, `restart` and `down`. An interrupted change needs no special recovery for that reason:
the next start closes it in the journal as interrupted and computes the difference again.

One change runs at a time (turns.py); while a `down` is under way nothing else is taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from idi.api.problems import Invalid
from idi.api.types import ChangeRequest, Progress
from idi.control.actors import CONTROL
from idi.control.bus.topics import Topics
from idi.control.change.apply import SUPERSEDED, Application, Executor
from idi.control.change.changes import Change
from idi.control.change.configuration import read, whole
from idi.control.change.outlook import Outlook
from idi.control.change.requests import Asked, title_of, what_is_asked
from idi.control.change.turns import Turns
from idi.control.change.wanted import Wanted
from idi.control.loop import Loop
from idi.control.settings import Settings
from idi.control.trust.issuer import keys_url_of, resolved
from idi.control.trust.rotation import Rotation
from idi.control.trust.secrets import Secrets, still_missing
from idi.control.wording import what_failed
from idi.declaration.load import Loaded
from idi.declaration.types import LocalTarget, Platform
from idi.parts.errors import Bug, IdiError, Refused
from idi.parts.gateway.interface import DataPlane
from idi.parts.store.interface import Actor, ChangeId, Store
from idi.plan.desired import desired
from idi.plan.difference import difference
from idi.plan.pushed import reached
from idi.plan.scaled import fitting
from idi.plan.types import Context, Desired, Plan

log = logging.getLogger(__name__)

RESUME_AFTER_S = 3.0
ACKNOWLEDGED_S = 10.0
FROM_FILE = ("up", "deploy")
"""What brings a declaration along, and puts back what others changed."""


@dataclass(slots=True)
class Reconciler:
    """Takes requests, makes them changes, runs them one after another.

    `adopt_platform` is called with every declaration that becomes current (issuer clients, certificate life ...);
    `check` refuses an `up` that cannot work before anything is begun; `resolve` fills in what has to be asked for
    outside (an external issuer's keys) and raises `PartError` where that does not answer; `places` says what references
    stand for that do not depend on an instance. `wanted` is what holds now; `unread` says why the one of an earlier
    control cannot be read; `stopped` is set at the end of a `down`.
    """

    settings: Settings
    store: Store
    loop: Loop
    plane: DataPlane
    executor: Executor
    tasks: asyncio.TaskGroup
    adopt_platform: Callable[[Platform], None]
    check: Callable[[], None]
    resolve: Callable[[Platform], Awaitable[Platform]]
    topics: Topics
    secrets: Secrets
    rotation: Rotation
    outlook: Outlook
    places: Callable[[Platform], Mapping[str, str]] = lambda _: {}
    wanted: Wanted = field(default_factory=Wanted)
    unread: str = ""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False
    turns: Turns = field(init=False)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)
    _declared: int = 0
    """How many declarations of somebody's came to hold, and ends of them."""

    def __post_init__(self) -> None:
        self.turns = Turns(self.executor, self.tasks)

    @property
    def idle(self) -> bool:
        return self.turns.running is None

    def desired(self) -> Desired:
        """What should run now: nothing after `down`."""
        platform = self.loop.platform
        if platform is None or not self.wanted.up:
            return Desired()
        return self.desired_of(platform, self.wanted)

    def desired_of(self, platform: Platform, wanted: Wanted) -> Desired:
        context = Context(
            self.settings.directory,
            self.settings.gateway_url(platform),
            sidecar=self.settings.cluster.sidecar_image if self.settings.cluster else "",
            relay=self.settings.cluster.relay_image if self.settings.cluster else "",
            places=self.places(platform),
        )
        return desired(platform, fitting(platform, wanted.overlays), context)

    # --- what somebody wants -----------------------------------------------------------------------

    def change(self, request: ChangeRequest, actor: Actor) -> AsyncIterator[Progress]:
        """Its progress, from now on; what is refused raises before that."""
        self._asked.set()
        self._refuse_while_leaving(request)
        self.turns.check()
        self.want(request)  # refused before anything is begun
        change = Change(title_of(request))
        self.turns.announce(change, request["action"])
        self.tasks.create_task(self._run(change, request, actor))
        return change.follow()

    async def ask(self, request: ChangeRequest, actor: Actor, *, resumed: bool = False) -> bool:
        """A change that nobody else asked for; whether it was made. `resumed`: an `up` of somebody's goes before it,
        and where that is refused it is asked for once more; where anything was declared meanwhile it is not."""
        since = self._declared if resumed else None
        while True:
            change = Change(title_of(request))
            self.turns.announce(change, "")
            await self._run(change, request, actor, since=since)
            if change.items[-1].get("ok"):
                return True
            if since is None or not change.gave_way or since != self._declared:
                log.warning("'%s' failed: %s", change.title, change.items[-1].get("reason"))
                return False
            await asyncio.sleep(0)  # whoever it gave way to goes on, whatever happens to them

    def _refuse_while_leaving(self, request: ChangeRequest) -> None:
        if self.closing or (self.turns.leaving and request["action"] != "down"):
            raise Refused("The platform is going down.", "Run idi up when it has ended.")

    def want(self, request: ChangeRequest) -> Asked:
        """Raises `Invalid` or `Refused` and changes nothing."""
        asked = what_is_asked(
            request, self.wanted, self.loop.platform, self.loop.world, self.settings.environment
        )
        if request["action"] in FROM_FILE:
            self._refuse_elsewhere(asked)
            self.check()
        return asked

    def _refuse_elsewhere(self, asked: Asked) -> None:
        target = asked.platform.target if asked.platform else LocalTarget()
        if isinstance(target, LocalTarget) == (self.settings.cluster is None):
            return
        here = "this machine" if self.settings.cluster is None else "this cluster"
        raise Refused(
            f"Environment '{self.settings.environment}' is declared to run elsewhere than on {here}, where it runs.",
            "Run idi down first, then idi up.",
        )

    async def _run(
        self,
        change: Change,
        request: ChangeRequest,
        actor: Actor,
        *,
        since: int | None = None,
    ) -> None:
        """`since`: it was resumed, and only where nothing was declared since then."""
        resumed = since is not None
        try:
            async with self.turns.turn(change, request["action"], resumed=resumed):
                if self.executor.superseded or since not in (None, self._declared):
                    change.done(False, SUPERSEDED)
                    return
                self._refuse_while_leaving(request)
                # On what is now: another change may have run since it was asked for.
                asked = self.want(request)
                await self._apply(change, request["action"], actor, asked, declares=not resumed)
        except IdiError as error:
            change.done(False, error.message, error.way_out)
        except Invalid as error:
            change.done(False, " ".join([error.detail, *error.mistakes]))
        except Exception as error:  # a bug must end this change, not control
            log.exception("change '%s' failed by a bug", change.title)
            bug = Bug(f"{type(error).__name__}: {error}.", "This is a bug of IDI; see idi logs control.")
            change.done(False, bug.message, bug.way_out)
        finally:
            self.closing = self.stopped.is_set()  # a `down` that failed, or was cut off, has ended nothing

    async def _apply(
        self,
        change: Change,
        action: str,
        actor: Actor,
        asked: Asked,
        *,
        declares: bool,
    ) -> None:
        wanted, detail, platform = asked.wanted, asked.detail, asked.platform
        if platform and action in FROM_FILE:
            platform = await resolved(self.resolve, platform, self.loop.platform, change.message)
            wanted = replace(wanted, keys_url=keys_url_of(platform))
        interrupted = await self._close_interrupted()
        if asked.rotation is not None:
            after = await self.rotation.apply(change, actor, asked.rotation, wanted)
            if after is None:
                return
            wanted = after
        change_id = None
        if asked.secret is not None and platform is not None:
            change_id, wanted = await self.secrets.keep(asked.secret, wanted, actor)
            kept = wanted.overlays.secrets
            for name, missing in still_missing(platform, kept, asked.secret.users).items():
                change.message(f"{name} does not start before {', '.join(missing)} is set, too.")
        goal = self.desired_of(platform, wanted) if platform and wanted.up else Desired()
        if action in FROM_FILE:
            for unseen in await self.outlook.look():
                change.message(unseen)
        plan = difference(goal, self.loop.world)
        if asked.only is not None and not interrupted:
            # What fails elsewhere is no failure of this change.
            also = reached(plan, self.loop.world) if action == "deploy" else ()
            plan = plan.only({*asked.only, *also})
        changed = wanted != self.wanted or bool(plan.changes())
        if changed and change_id is None:
            change_id = await self.store.begin(
                actor, action, detail, documents=wanted.documents(), relief=action == "down"
            )
        change.tell({"type": "started", "change": int(change_id or 0)})
        if interrupted:
            change.message("An interrupted change was found; this one completes it.")
        for note in asked.notes:
            change.message(note)
        self._declared += declares and action in (*FROM_FILE, "down")
        self.become(wanted, platform)
        self.closing = not wanted.up
        failures = await self._work(change, change_id, plan)
        if changed and wanted.up and not self.executor.superseded:
            for refusal in await self._refusals():
                change.message(refusal)
                failures.append(refusal)
        if platform and action in FROM_FILE and not failures:
            for note in await self.topics.tidy(platform):
                change.message(note)
        # Who runs an instance themselves has the login with which it began.
        leaves_none = (asked.only is None or asked.rotation) and not wanted.overlays.runs
        if platform is not None and not failures and leaves_none:
            self.rotation.logins.settle(platform)
        try:
            if change_id is not None:
                await self.store.finish(change_id, not failures, "; ".join(failures)[:2000])
        finally:
            if self.closing and not failures:
                self.stopped.set()  # also where that could not be written: nothing is left to stay for
        if not failures and not plan.steps():
            change.message("No instance had to change." if changed else "Nothing to change.")
        if failures:
            change.done(False, what_failed(failures), "idi status shows the rest.")
        else:
            change.done(True)

    async def _work(self, change: Change, change_id: ChangeId | None, plan: Plan) -> list[str]:
        if not plan.steps():
            return []
        application = Application(self.store, change_id, self.executor, change.step)
        return await application.run(plan)

    async def _close_interrupted(self) -> bool:
        """End in the journal what an earlier control left open. On a full disk that has to wait."""
        interrupted = await self.store.unfinished()
        try:
            for open_change in interrupted:
                await self.store.finish(open_change.id, False, "control ended before it was done")
        except Refused as error:
            log.warning("an interrupted change stays open: %s", error)
        return bool(interrupted)

    async def _refusals(self) -> list[str]:
        """What proxies refuse of what was published: the last good configuration serves there."""
        self.loop.flush()
        if self.loop.fault:
            return [f"The view of traffic cannot be made, the last good one stays: {self.loop.fault}"]
        result = await self.plane.barrier(ACKNOWLEDGED_S)
        return [f"{each.node} refuses {each.resource}: {each.message}" for each in result.rejected]

    def become(self, wanted: Wanted, platform: Platform | None) -> None:
        """What is wanted from now on; routes, edges and policies follow at once."""
        self.wanted, self.unread = wanted, ""
        if platform is not None and wanted.up:
            self.loop.declare(platform)
            self.adopt_platform(platform)

    # --- taking up what was interrupted --------------------------------------------------------------

    async def recall(self) -> None:
        """Read what was wanted before control ended; traffic follows it before anybody asks."""
        self.wanted = await Wanted.recall(self.store)
        if self.wanted.text:
            loaded = read(self.wanted, self.settings.environment, self.wanted.overlays.config)
            if isinstance(loaded, Loaded):
                platform = whole(loaded, self.wanted)
                self.loop.declare(platform)
                self.adopt_platform(platform)
            else:
                self.unread = (
                    f"The declaration that was applied last cannot be read by this version ({loaded.mistakes[0]}). "
                    "What runs goes on; idi up applies the file as it is now."
                )
                log.warning("%s", self.unread)

    async def resume(self) -> None:
        """If nobody asks for anything soon after a start, converge on what was wanted before.

        Whoever started control asks at once; only a start by other means comes to the resuming.
        """
        try:
            async with asyncio.timeout(RESUME_AFTER_S):
                await self._asked.wait()
            return
        except TimeoutError:
            pass
        if not self.wanted.text:
            return
        request: ChangeRequest = {"action": "up", "text": self.wanted.text, "file": self.wanted.file}
        if not self.wanted.up:
            if not self.loop.world.modules and not self.loop.world.parts:
                return
            request = {"action": "down"}
        await self.ask(request, CONTROL, resumed=True)
