"""The audit log as control hands it out: judged from the bytes, whoever hands them out."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from idi.api.audit import PAGE, RemoteLog
from idi.control import audit_pages
from idi.control.audit_pages import AuditPages
from idi.ledger.proof_file import InclusionProof
from idi.parts.errors import IdiError
from idi.parts.store.sqlite import check
from tests.support.journals import Place, write_history

pytestmark = pytest.mark.requirement("S5")

View = dict[str, Any]


@dataclass
class Handing:
    """A client whose control hands out pages of this journal, changed by `forge`."""

    pages: AuditPages
    forge: Callable[[View], View] = lambda view: view
    asked: list[tuple[int, int]] = field(default_factory=list)

    def ask(self, method: str, target: str) -> View:
        assert method == "GET"
        query = {name: int(value) for name, value in parse_qsl(target.partition("?")[2])}
        self.asked.append((query["start"], query["limit"]))
        return self.forge(dict(asyncio.run(self.pages.page(query["start"], query["limit"]))))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("audit")
    found = Place(folder / "journal", folder / "keys")
    found.keys.mkdir(mode=0o700)

    async def write() -> None:
        async with found.open() as store:
            await write_history(store, 60)

    asyncio.run(write())
    return found


def log(place: Place, forge: Callable[[View], View] = lambda view: view) -> tuple[RemoteLog, Handing]:
    client = Handing(AuditPages(place.directory), forge)
    return RemoteLog.opened(client), client  # type: ignore[arg-type]


def test_all_of_it_comes_in_pages_and_holds(place: Place, tmp_path: Path) -> None:
    found, client = log(place)
    with check.open_log(place.directory) as own:
        assert found.size == own.size > PAGE
        report = found.verify("", tmp_path / "audit.json")
        assert report.holds, report.findings
        assert "taken from the log itself" in report.remarks[0]
        assert all(limit <= PAGE for _, limit in client.asked)
        assert [found.data(at) for at in range(found.size)] == [own.read_entry(at) for at in range(own.size)]
        for at in (0, 7, found.size - 1):
            assert found.prove(at) == check.prove(own, at)
            assert isinstance(found.prove(at), InclusionProof)
    assert found.verify(found.verifier, tmp_path / "other.json").holds
    again, _ = log(place)
    assert again.verify("", tmp_path / "audit.json").remarks == ()


def test_the_newest_cost_one_page(place: Place) -> None:
    found, client = log(place)
    for at in range(found.size - 1, found.size - 21, -1):
        found.entry(at)
    assert len(client.asked) == 2


def changed(at: int) -> Callable[[View], View]:
    """One letter of one entry."""

    def forge(view: View) -> View:
        where = at - view["start"]
        if 0 <= where < len(view["entries"]):
            data = base64.b64decode(view["entries"][where]).replace(b"ada", b"eve")
            view["entries"][where] = base64.b64encode(data).decode()
        return view

    return forge


@pytest.mark.parametrize("at", [3, 100])
def test_one_changed_entry_is_found_and_nothing_is_proved(place: Place, tmp_path: Path, at: int) -> None:
    found, _ = log(place, changed(at))
    report = found.verify("", tmp_path / "audit.json")
    assert not report.holds
    assert not (tmp_path / "audit.json").exists()
    with pytest.raises(IdiError, match="do not have the root"):
        found.prove(0)


def test_a_log_that_was_cut_or_made_anew_is_not_the_one_that_was_verified(
    place: Place, tmp_path: Path
) -> None:
    remembered = tmp_path / "audit.json"
    found, _ = log(place)
    assert found.verify("", remembered).holds
    other = Place(tmp_path / "other", tmp_path / "other-keys")
    other.keys.mkdir(mode=0o700)

    async def write() -> None:
        async with other.open() as store:
            await write_history(store, 3)

    asyncio.run(write())
    report = log(other)[0].verify("", remembered)
    assert not report.holds
    assert any("names the key" in one.text for one in report.findings)
    # The same key, and a history that says something else.
    anew = Place(tmp_path / "anew", place.keys)

    async def less() -> None:
        async with anew.open() as store:
            await write_history(store, 3)

    asyncio.run(less())
    report = log(anew)[0].verify("", remembered)
    assert not report.holds
    assert any("lost" in one.text for one in report.findings)


def test_what_is_no_page_is_refused(place: Place) -> None:
    for forge in (lambda view: {}, lambda view: {**view, "head": "%%"}):
        with pytest.raises(IdiError, match="no page of its audit log"):
            log(place, forge)
    found, _ = log(place)
    silent, _ = log(place, lambda view: {**view, "entries": []})
    assert silent.size == found.size
    with pytest.raises(IdiError, match="gave no entry"):
        silent.data(0)


async def test_a_page_is_bounded_by_number_and_size(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = AuditPages(place.directory)
    assert (await pages.page(0, 0))["entries"] == []
    monkeypatch.setattr(audit_pages, "MOST_ENTRIES", 7)
    assert len((await pages.page(0, 10_000))["entries"]) == 7
    monkeypatch.setattr(audit_pages, "MOST_BYTES", 1)
    assert len((await pages.page(0, 10_000))["entries"]) == 1
    assert (await pages.page(10**9, 5))["entries"] == []
