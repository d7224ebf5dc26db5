"""A bounded, steady load on loopback that keeps every failure."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import httpx


class Load:
    """`workers` callers, each one request after the other with a pause between. `failures` are statuses
    other than 200 and exceptions, in words; `names` counts who answered."""

    def __init__(self, urls: Sequence[str], workers: int, pause_s: float, method: str) -> None:
        self._urls, self._workers, self._pause_s, self._method = urls, workers, pause_s, method
        self.sent = 0
        self.failures: list[str] = []
        self.names: Counter[str] = Counter()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        limits = httpx.Limits(max_connections=self._workers, max_keepalive_connections=self._workers)
        async with httpx.AsyncClient(timeout=15, limits=limits) as client:
            await asyncio.gather(*(self._worker(client, number) for number in range(self._workers)))

    async def _worker(self, client: httpx.AsyncClient, number: int) -> None:
        while not self._stop.is_set():
            url = self._urls[number % len(self._urls)]
            self.sent += 1
            try:
                answer = await client.request(self._method, url)
            except httpx.HTTPError as error:
                self.failures.append(repr(error))
            else:
                if answer.status_code == 200:
                    self.names[answer.json().get("name", "")] += 1
                else:
                    self.failures.append(f"{answer.status_code} {answer.text[:200]}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._pause_s)

    def stop(self) -> None:
        self._stop.set()


@contextlib.asynccontextmanager
async def load(
    urls: Sequence[str], workers: int = 8, pause_s: float = 0.01, method: str = "GET"
) -> AsyncIterator[Load]:
    """Runs as long as the block does; leaving it waits for what is under way."""
    made = Load(urls, workers, pause_s, method)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.run())
        try:
            yield made
        finally:
            made.stop()
