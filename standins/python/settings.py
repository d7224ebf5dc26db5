"""What the environment says, read once at start; a wrong value ends the start with one line, as a module ought to."""

from __future__ import annotations

from collections.abc import Mapping

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
LONGEST = 3600.0


class Wrong(ValueError):
    """A value that can't be read; the message is for people."""


def duration(text: str) -> float:
    """Seconds from `250ms`, `2s`, `1m` or a plain number of seconds."""
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    factor = UNITS.get(text[len(number) :] or "s")
    try:
        value = float(number) * (factor or float("nan"))
    except ValueError:
        value = float("nan")
    if not 0 <= value <= LONGEST:
        raise Wrong(f"'{text}' is not a duration from 0 to 1h such as 250ms or 2s")
    return value


def whole(text: str, low: int, high: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 12 and low <= int(text) <= high:
        return int(text)
    raise Wrong(f"'{text}' is not a whole number from {low} to {high}")


def rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise Wrong(f"'{text}' is not a rate from 0 to 1")
    return value


class Settings:
    """The contract's variables and the knobs that make a stand-in misbehave."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.port = self._whole("PORT", None, 1, 65535)
        self.bind = env.get("STANDIN_BIND") or "127.0.0.1"
        self.module = env.get("IDI_MODULE") or "standin"
        self.version = env.get("IDI_VERSION") or "0"
        self.instance = env.get("IDI_INSTANCE") or self.module
        self.environment = env.get("IDI_ENV") or "none"
        self.slow = self._duration("STANDIN_SLOW", "0")
        self.fail_rate = self._rate("STANDIN_FAIL_RATE", "0")
        self.fail_status = self._whole("STANDIN_FAIL_STATUS", "500", 400, 599)
        self.seed = self._whole("STANDIN_SEED", "1", 0, 2**31)
        self.ready_after = self._duration("STANDIN_READY_AFTER", "0")
        self.crash_after = self._duration("STANDIN_CRASH_AFTER", "0")
        self.crash_code = self._whole("STANDIN_CRASH_CODE", "1", 0, 255)
        self.memory_mb = self._whole("STANDIN_MEMORY_MB", "0", 0, 4096)
        self.ignore_term = env.get("STANDIN_IGNORE_TERM", "") not in ("", "0", "false")
        self.exit_at_start = self._whole("STANDIN_EXIT_AT_START", "256", 0, 256)  # 256: not set
        self.call_timeout = self._duration("STANDIN_CALL_TIMEOUT", "10s")
        self.linger = self._duration("STANDIN_LINGER", "300ms")
        self.grace = self._duration("STANDIN_GRACE", "8s")
        self.log_requests = env.get("STANDIN_LOG") == "requests"
        self.on_event = env.get("STANDIN_ON_EVENT", "")
        self.remember = self._whole("STANDIN_REMEMBER", "100000", 1, 1_000_000)
        ours = {"GATEWAY_URL", "EVENTS_URL"}
        self.peers = sorted(
            name[:-4].lower().replace("_", "-")
            for name, value in env.items()
            if name.endswith("_URL") and len(name) > 4 and name not in ours and value.startswith("http://")
        )

    def peer_url(self, peer: str) -> str | None:
        return self.env.get(peer.upper().replace("-", "_") + "_URL")

    def _text(self, name: str, default: str | None) -> str:
        value = self.env.get(name) or default
        if value is None:
            raise Wrong(f"{name} is not set")
        return value

    def _whole(self, name: str, default: str | None, low: int, high: int) -> int:
        try:
            return whole(self._text(name, default), low, high)
        except Wrong as wrong:
            raise Wrong(
                str(wrong) if default is None and name not in self.env else f"{name}: {wrong}"
            ) from None

    def _duration(self, name: str, default: str) -> float:
        try:
            return duration(self._text(name, default))
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}") from None

    def _rate(self, name: str, default: str) -> float:
        try:
            return rate(self._text(name, default))
        except Wrong as wrong:
            raise Wrong(f"{name}: {wrong}") from None
