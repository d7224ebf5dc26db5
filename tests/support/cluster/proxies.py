"""Watches from outside which endpoints each Envoy has, and when it got or lost them.

Envoys are asked in turn, every few milliseconds, for their clusters: what a proxy says there is what it routes by.
Modules are looked at too: from when on something listens on the module's own port. Times are those of the monotonic
clock, taken after the answer, so a change is dated late by a turn and never early.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping

from tests.support.cluster.here import Listeners, somebody

PAUSE_S = 0.002
ANSWER_S = 5.0
HOST = re.compile(rb"^([^:\n]+)::([0-9.]+:\d+)::hostname::", re.M)
LONGEST = 1024 * 1024


class Proxy:
    """One Envoy, by a process of its container; it must stay the same process."""

    def __init__(self, name: str, pid: int, clusters: Collection[str]) -> None:
        self.name = name
        self.since: dict[str, float] = {}
        """Endpoints that it has, from when on."""
        self.until: dict[str, float] = {}
        """When it lost an endpoint the last time; it may have it again."""
        names = "|".join(clusters)
        self._request = f"GET /clusters?filter=^({names})$ HTTP/1.1\r\nhost: admin\r\n\r\n".encode()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_S)
        self._socket.connect(f"/proc/{pid}/root/run/idi/envoy.admin")

    def look(self) -> bool:
        """Whether anything changed."""
        now = {endpoint.decode() for _, endpoint in HOST.findall(self._ask())}
        at = time.monotonic()
        came, went = now - self.since.keys(), self.since.keys() - now
        for endpoint in came:
            self.since[endpoint] = at
        for endpoint in went:
            del self.since[endpoint]
            self.until[endpoint] = at
        return bool(came or went)

    def close(self) -> None:
        self._socket.close()

    def _ask(self) -> bytes:
        """The body, in chunks as it came: names of hosts are never cut, since a line is written at once."""
        self._socket.sendall(self._request)
        said = bytearray()
        while not said.endswith(b"\r\n0\r\n\r\n"):
            piece = self._socket.recv(256 * 1024)
            if not piece or len(said) > LONGEST:
                raise ConnectionError(f"the Envoy of {self.name} does not say what it has")
            said += piece
        return bytes(said)


class Proxies:
    """A context manager: inside it they are watched, by a thread of its own."""

    def __init__(self, proxies: Mapping[str, int], clusters: Collection[str], port: int) -> None:
        """Names with a process of each; names of clusters; the port that modules listen on."""
        self.all = [Proxy(name, pid, clusters) for name, pid in proxies.items()]
        self.turns = 0
        self._port = port
        self._pods: dict[str, Listeners | None] = {}
        self._listens: dict[str, float] = {}
        self._changed = threading.Condition()
        self._over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._watch, name="proxies", daemon=True)

    def __enter__(self) -> Proxies:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(timeout=2 * ANSWER_S)
        for proxy in self.all:
            proxy.close()
        self.look_at(())

    def look_at(self, pods: Collection[str]) -> None:
        """From now on at these, by uid, and no others."""
        with self._changed:
            for gone in self._pods.keys() - set(pods):
                if listeners := self._pods.pop(gone):
                    listeners.close()
                self._listens.pop(gone, None)
            for uid in pods:
                self._pods.setdefault(uid, None)

    def listens(self, pod: str) -> float:
        """Since when its module does."""
        return self._listens[pod]

    def gone(self, endpoint: str, after: float, timeout_s: float) -> float:
        """Wait until all of them have lost it after that moment; when the last one did. It may be back meanwhile."""
        self._until(lambda proxy: proxy.until.get(endpoint, 0.0) >= after, timeout_s, endpoint)
        return max(proxy.until[endpoint] for proxy in self.all)

    def there(self, endpoint: str, timeout_s: float) -> float:
        """Wait until all have it; when the last one got it."""
        self._until(lambda proxy: endpoint in proxy.since, timeout_s, endpoint)
        return max(proxy.since[endpoint] for proxy in self.all)

    def _until(self, holds: Callable[[Proxy], bool], timeout_s: float, endpoint: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._failure or all(map(holds, self.all)), timeout_s):
                have = [proxy.name for proxy in self.all if endpoint in proxy.since]
                raise TimeoutError(f"after {timeout_s:g} s {endpoint} is at {have or 'none'}")
        if self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        try:
            while not self._over.is_set():
                changed = [proxy.look() for proxy in self.all]
                with self._changed:
                    self._look_at_modules()
                    if any(changed):
                        self._changed.notify_all()
                self.turns += 1
                time.sleep(PAUSE_S)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()

    def _look_at_modules(self) -> None:
        for uid, known in self._pods.items():
            if known is None:
                try:
                    if pid := somebody(uid):
                        self._pods[uid] = known = Listeners(pid)
                except OSError:
                    continue  # it ended meanwhile: another one of that pod will be there
            if known is not None and known.has(self._port):
                self._listens.setdefault(uid, time.monotonic())
            else:
                self._listens.pop(uid, None)
