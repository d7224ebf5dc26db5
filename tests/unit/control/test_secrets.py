"""What control gives to an instance, and in which words it says why it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from idi.control.change.wanted import Wanted
from idi.control.trust import secrets
from idi.control.trust.secrets import Secrets, secrets_view
from idi.declaration.load import Loaded, load
from idi.parts.errors import PartError, Refused
from idi.parts.secrets.interface import SecretStore
from idi.parts.secrets.simulator import SimulatedSecrets
from idi.parts.store.memory import MemoryStore
from idi.parts.targets.interface import Unsupplied
from idi.plan.types import KeptSecret, Overlays
from tests.support.targets import make_spec

pytestmark = pytest.mark.requirement("S1", "T4")

STORE = SimulatedSecrets({"a": [b"first", b"second"], "b": [b"x"]})


def own(module: str, path: str, _version: int) -> str:
    if path != "idi/bus":
        raise Refused(f"{module} asks for the secret {path}, which nobody keeps.")
    return f"{module}'s"


async def vault() -> SecretStore:
    return STORE


def keeper(kept: Mapping[str, KeptSecret] | None = None) -> Secrets:
    return Secrets(MemoryStore(), vault, own, lambda: kept or {})


async def test_each_in_the_version_of_the_revision() -> None:
    spec = replace(make_spec(), secrets={"a": 1, "b": 1})
    assert await keeper().supply(spec, ["a", "b", "idi/bus"]) == {
        "a": b"first",
        "b": b"x",
        "idi/bus": b"jede's",
    }
    assert await keeper().supply(replace(spec, secrets={"a": 2}), ["a"]) == {"a": b"second"}


async def test_why_there_is_none() -> None:
    spec = replace(make_spec(), secrets={"a": 0, "b": 0})
    unset = keeper({"a": KeptSecret(2, 0.0)})
    with pytest.raises(Unsupplied, match=r"^secret b is not set; idi secrets set b$") as caught:
        await unset.supply(spec, ["a", "b"])
    assert not caught.value.retryable
    with pytest.raises(Unsupplied, match=r"^secret a has no version 3 any more; idi secrets set a$"):
        await keeper().supply(replace(spec, secrets={"a": 3}), ["a"])
    with pytest.raises(Unsupplied, match=r"which nobody keeps$"):
        await keeper().supply(spec, ["idi/other"])


async def test_a_store_that_is_away_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sealed() -> SecretStore:
        raise PartError("OpenBao is sealed.", "See idi logs openbao.")

    async def hangs() -> SecretStore:
        await asyncio.Event().wait()
        raise AssertionError

    spec = replace(make_spec(), secrets={"a": 1})
    monkeypatch.setattr(secrets, "GIVES_S", 0.01)
    for store, why in ((sealed, "OpenBao is sealed$"), (hangs, "OpenBao gives none within")):
        with pytest.raises(Unsupplied, match=f"^its secrets cannot be had: {why}") as caught:
            await replace(keeper(), vault=store).supply(spec, ["a"])
        assert caught.value.retryable


def test_the_view_has_what_is_kept_and_what_is_declared() -> None:
    modules = "{web: {run: serve, secrets: {A: a, B: a, C: c}}, api: {run: serve, secrets: {A: a}}}"
    text = f"platform: shop\nmodules: {modules}\n"
    loaded = load(text, file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded)
    wanted = Wanted(overlays=Overlays(secrets={"a": KeptSecret(2, 1.5), "old": KeptSecret(1, 0.0)}))
    found = {one["path"]: one for one in secrets_view(loaded.platform, wanted)["secrets"]}
    assert {path: (one["version"], one["modules"], one["missing"]) for path, one in found.items()} == {
        "a": (2, ["web", "api"], False),
        "c": (0, ["web"], True),
        "old": (1, [], False),
    }
    assert (found["a"]["since"], found["c"]["since"]) == ("1970-01-01T00:00:01.500Z", None)
    assert secrets_view(None, Wanted()) == {"secrets": []}
