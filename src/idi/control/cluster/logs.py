"""The logs of a cluster's environment as the API gives them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from idi.api.types import LogsRequest, LogView
from idi.api.views import rfc3339
from idi.parts.targets.kubernetes.output import Asked, Item, Live, Note, Output
from idi.parts.targets.printed import LogLine


@dataclass(frozen=True, slots=True)
class PodLogs:
    output: Output

    async def read(self, request: LogsRequest) -> AsyncGenerator[LogView | None]:
        asked = Asked(frozenset(request["sources"]), request["tail"], request["since"], request["follow"])
        return views(await self.output.read(asked))


async def views(items: AsyncGenerator[Item]) -> AsyncGenerator[LogView | None]:
    async with aclosing(items):
        async for item in items:
            yield view(item)


def view(item: Item) -> LogView | None:
    match item:
        case LogLine():
            return {
                "type": "line",
                "time": rfc3339(item.time),
                "source": item.source,
                "module": item.module,
                "line": item.line,
            }
        case Note():
            return {"type": "note", "time": "", "source": item.source, "module": "", "line": item.text}
        case Live():
            return {"type": "live", "time": "", "source": "", "module": "", "line": ""}
    return None
