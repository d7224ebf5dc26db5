"""Secrets of modules in OpenBao's key-value engine, version 2.

A value lies as base64 under one key, since the engine keeps JSON and a secret may be any bytes. The engine
keeps the newest ten versions of a path: what still runs with an older one goes on, and a new instance of it
is told that its version is gone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from typing import Any

from idi.parts.clients.openbao import Json, OpenBaoRefused, Session
from idi.parts.clients.openbao_layout import KV_MOUNT
from idi.parts.errors import PartError
from idi.parts.secrets.interface import Overtaken

_KEY = "value"
_PAUSES_S = (0.1, 0.3, 1.0)


class OpenBaoSecrets:
    def __init__(self, session: Session) -> None:
        self._session = session

    async def version(self, path: str) -> int:
        found = await self._find("GET", f"{KV_MOUNT}/metadata/{path}")
        return int(found["data"].get("current_version") or 0) if found else 0

    async def put(self, path: str, value: bytes, after: int) -> int:
        body = {"data": {_KEY: base64.b64encode(value).decode()}, "options": {"cas": after}}
        try:
            answer = await self._call("POST", f"{KV_MOUNT}/data/{path}", body)
        except OpenBaoRefused as error:
            if "check-and-set" in error.message:
                raise Overtaken(
                    f"Somebody else has just set {path}.", "Set it again if yours is to hold."
                ) from None
            raise
        return int(answer["data"]["version"])

    async def get(self, path: str, version: int) -> bytes | None:
        found = await self._find("GET", f"{KV_MOUNT}/data/{path}?version={version}")
        kept = ((found or {}).get("data") or {}).get("data") or {}
        if _KEY not in kept:
            return None
        try:
            return base64.b64decode(str(kept[_KEY]), validate=True)
        except binascii.Error:
            raise PartError(
                f"What OpenBao keeps at {path} was not written by IDI.",
                f"idi secrets set {path} replaces it.",
                retryable=False,
            ) from None

    async def _find(self, method: str, path: str) -> Json | None:
        try:
            return await self._call(method, path)
        except OpenBaoRefused as error:
            if error.status == 404:
                return None
            raise

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Json:
        """An engine that has just been made refuses everything for a moment, until it has set itself up."""
        for pause in (*_PAUSES_S, None):
            try:
                return await self._session.call(method, path, body)
            except OpenBaoRefused as error:
                if pause is None or "pgrad" not in error.message:
                    raise
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")
