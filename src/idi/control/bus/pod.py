"""The broker as a pod: its configuration is a Secret that only its pod mounts, and control comes through the mesh.

kubelet brings a changed Secret into a running pod when it next looks at that pod, which by itself is up to a minute
later. It looks at once when something about the pod changes, so control touches it: an annotation with the tag of the
configuration. Then the broker is asked, in its own account, to read its file again, until it says that the one it has
is this one (docs/decisions/0012). Nothing runs in the pod beside it for that, and without control it starts with what
lies there.

`taken` is for who has to wait until a login is good.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from idi.control.bus.broker import ready
from idi.control.trust.caller import Caller
from idi.parts.bus.errors import BusDown
from idi.parts.bus.nats.config import marked
from idi.parts.clients.kubernetes import Kubernetes, path
from idi.parts.errors import PartError
from idi.plan.bus import ACCOUNTS, BUS, CONFIG, RELAY
from idi.world.events import Event, InstanceSeen
from idi.world.types import Instance, World

log = logging.getLogger(__name__)

TOUCHED = "idi.dev/accounts"
"""Annotation of the broker's pod."""

ASK_S = 0.25
TOUCH_AGAIN_S = 5.0
"""kubelet may have looked just before it heard of the Secret."""
TRY_AGAIN_S = 1.0
TAKEN_S = 30.0


@dataclass(slots=True)
class BrokerPod:
    """`identity` is the broker's in the mesh, `watching` the password in its own account; `keep` has to run."""

    api: Kubernetes
    namespace: str
    world: Callable[[], World]
    caller: Caller
    identity: Callable[[], str]
    watching: str = field(repr=False)
    _text: str = ""
    _tag: str = ""
    _kept: str = ""
    """The tag of what is in the Secret, as far as it is known."""
    _again: bool = False
    _work: asyncio.Event = field(default_factory=asyncio.Event)
    _taken: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, text: str) -> None:
        text, tag = marked(text)
        if tag != self._tag:
            self._text, self._tag = text, tag
            self._taken.clear()
            self._work.set()

    def again(self) -> None:
        self._again = True
        self._work.set()

    def hear(self, event: Event) -> None:
        """A listener of the loop: see `Broker.hear`."""
        if (
            isinstance(event, InstanceSeen)
            and event.instance.module in (BUS, RELAY)
            and event.instance.state == "ready"
        ):
            self.again()

    def restart(self) -> None:
        raise PartError("The bus is not restarted by itself on a cluster.")

    def reach(self) -> tuple[str, ssl.SSLContext]:
        one = ready(self.world())
        if one is None:
            raise BusDown("The bus is not ready.", "idi status says why.")
        try:
            tls = self.caller.to(self.identity())
        except PartError as error:
            raise BusDown(error.message, error.way_out) from error
        return f"nats://{one.address}:{next(iter(one.mesh.values()))}", tls

    async def taken(self) -> None:
        """The broker that runs has what was declared last, or after a while in any case: logins wait, nothing else."""
        if not self._tag or ready(self.world()) is None:
            return
        try:
            async with asyncio.timeout(TAKEN_S):
                await self._taken.wait()
        except TimeoutError:
            log.warning("the bus has not taken its accounts within %g s", TAKEN_S)

    async def keep(self) -> None:
        """Bring what was declared last to the broker, until cancelled."""
        told = ""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._bring()
                told = ""
            except PartError as error:
                if error.message != told:
                    told = error.message
                    log.warning("the bus's accounts: %s", error)
                self._work.set()
                await asyncio.sleep(TRY_AGAIN_S)

    async def _bring(self) -> None:
        tag = self._tag
        if not tag:
            return
        if self._kept != tag:
            await self.api.apply(path("v1", "secrets", self.namespace, ACCOUNTS), self._secret(), force=True)
            self._kept = tag
        one = ready(self.world())
        if one is None:
            return  # it reads what lies there when it starts, and is heard of then
        again, self._again = self._again, False
        try:
            await self._read(one, tag, again=again)
        except BaseException:
            self._again |= again
            raise
        if tag == self._tag:
            self._taken.set()

    async def _read(self, one: Instance, tag: str, *, again: bool) -> None:
        from idi.parts.bus.nats.health import NatsHealth

        url, tls = self.reach()
        began = time.monotonic()
        async with NatsHealth(url, self.watching, tls) as health:
            has = tag in await health.tags()
            touched = 0.0
            while again or not has:
                if not has and (now := time.monotonic()) - touched > TOUCH_AGAIN_S:
                    touched = now
                    await self._touch(one, tag)
                if refused := await health.read_again():
                    raise PartError(f"The bus does not take its configuration: {refused}.")
                again, has = False, tag in await health.tags()
                if tag != self._tag:
                    return  # another came meanwhile
                if not has:
                    await asyncio.sleep(ASK_S)
            if touched:
                log.info("the bus has taken its accounts after %.1f s", time.monotonic() - began)

    async def _touch(self, one: Instance, tag: str) -> None:
        annotation = {"metadata": {"annotations": {TOUCHED: f"{tag} {time.time():.3f}"}}}
        await self.api.patch(path("v1", "pods", self.namespace, one.id), annotation)

    def _secret(self) -> dict[str, object]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": ACCOUNTS, "namespace": self.namespace, "labels": {"idi.dev/part": BUS}},
            "type": "Opaque",
            "data": {CONFIG: base64.b64encode(self._text.encode()).decode()},
        }
