"""Which keys there are, since when and until when: dates of files and certificates, and never a key."""

from __future__ import annotations

from pathlib import Path

from idi.api.types import KeysView, KeyView
from idi.api.views import rfc3339
from idi.parts.clients.openbao import OpenBao
from idi.parts.clients.openbao_layout import ROOT_MOUNT
from idi.parts.errors import PartError
from idi.parts.secrets.openbao.pki import INTERMEDIATE_LIFE_H, authority_life
from idi.parts.secrets.openbao.server import Places


async def keys_view(
    places: Places, token_keys: tuple[float, float] | None, logins_since: float | None
) -> KeysView:
    """`token_keys`: since when the key signs and when the next one comes; None where another issuer has them.
    `logins_since`: None where there is no bus."""
    folder = places.key_folder
    begun, end = await _root(places)
    found = [
        _view(
            "seal",
            "OpenBao's store: secrets, certificate keys",
            0.0 if places.seal else _written(folder.seal_key),
        ),
        _view("recovery", "changes of OpenBao's set-up", _written(folder.recovery_path)),
        _view("control", "control's own way into OpenBao", _written(folder.control_path)),
        # The last intermediate that it signs must not outlive it.
        _view("certificates", "who is who between modules", begun, end and end - INTERMEDIATE_LIFE_H * 3600),
    ]
    found[0]["kept"] = [str(path) for path in folder.former_seal_keys()]
    if token_keys is not None:
        found.append(_view("tokens", "tokens of the gateway's clients", *token_keys, by_itself=True))
    if logins_since is not None:
        found.append(_view("bus", "logins of modules at the broker", logins_since))
    return {"keys": found}


def _view(name: str, protects: str, since: float, due: float = 0.0, *, by_itself: bool = False) -> KeyView:
    return {
        "name": name,
        "protects": protects,
        "since": rfc3339(since) if since else None,
        "due": rfc3339(due) if due else None,
        "due_by_itself": by_itself,
        "kept": [],
    }


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


async def _root(places: Places) -> tuple[float, float]:
    try:
        async with OpenBao(places.address, timeout_s=2.0) as client:
            return await authority_life(client, ROOT_MOUNT)
    except PartError:
        return 0.0, 0.0
