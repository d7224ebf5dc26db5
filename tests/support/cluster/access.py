"""The project's own client, as the kubeconfig's user; and a gate between the two that can be shut."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from idi.parts.clients.kubernetes import Access
from tests.support.cluster.private import write_private


def access(kubeconfig: Path, folder: Path) -> Access:
    """Of the current context; what the file holds as data is written to files in the folder."""
    document = yaml.safe_load(kubeconfig.read_text())

    def named(kind: str, name: str) -> dict[str, Any]:
        return next(one for one in document[f"{kind}s"] if one["name"] == name)[kind]

    context = named("context", document["current-context"])
    cluster, user = named("cluster", context["cluster"]), named("user", context["user"])

    def file(given: dict[str, str], name: str) -> str:
        if f"{name}-data" not in given:
            return given.get(name, "")
        return str(write_private(folder / name, base64.b64decode(given[f"{name}-data"])))

    pair = file(user, "client-certificate"), file(user, "client-key")
    return Access(
        url=cluster["server"],
        authority=file(cluster, "certificate-authority"),
        token=user.get("token", ""),
        certificate=pair if all(pair) else None,
    )


@dataclass
class Gate:
    """Carries connections to a port of this machine until it is shut, which ends them at once."""

    port: int
    there: int = 0
    """Its own."""
    is_open: bool = True
    _carried: set[asyncio.StreamWriter] = field(default_factory=set)

    def shut(self) -> None:
        self.is_open = False
        for writer in self._carried:
            writer.transport.abort()

    def open(self) -> None:
        self.is_open = True

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.is_open:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.port)
        both = {writer, far_writer}
        self._carried |= both
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(copy(reader, far_writer))
                ways.create_task(copy(far_reader, writer))
        finally:
            self._carried -= both
            for one in both:
                one.transport.abort()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    writer.transport.abort()


@asynccontextmanager
async def gated(through: Access) -> AsyncIterator[tuple[Access, Gate]]:
    """The same access through a gate. The certificate has to be good for 127.0.0.1."""
    gate = Gate(urlsplit(through.url).port or 443)
    server = await asyncio.start_server(gate.carry, "127.0.0.1", 0)
    gate.there = server.sockets[0].getsockname()[1]
    try:
        yield replace(through, url=f"https://127.0.0.1:{gate.there}"), gate
    finally:
        gate.shut()
        server.close()
