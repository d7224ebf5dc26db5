"""Where a platform keeps its keys: never in the checkout, whatever is missing from the environment."""

import os

import pytest

from idi.api.place import place
from idi.parts.errors import Refused


def keys() -> str:
    return place("shop/platform.yaml", "dev")[4]


def test_keys_are_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/ann")
    assert keys().startswith("/home/ann/.local/share/idi/")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert keys().startswith("/data/idi/")
    monkeypatch.setenv("XDG_DATA_HOME", "data")  # the standard says: relative ones are ignored
    assert keys().startswith("/home/ann/.local/share/idi/")


def test_without_a_home_there_is_a_refusal_and_no_folder_called_tilde(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_001)
    with pytest.raises(Refused, match="no home folder") as refused:
        keys()
    assert "HOME" in refused.value.way_out
