"""Which lines of a cluster's logs are shown, and what may be asked for."""

from __future__ import annotations

from typing import cast

from idi.api.types import LogView, StatusView
from idi.cli.logs_cluster import Kept, sources_of
from tests.command.fake_control import instance, module, status


def line(number: int, source: str = "jede-a", module: str = "jede") -> LogView:
    return {"type": "line", "time": "", "source": source, "module": module, "line": str(number)}


def numbers(views: object) -> list[str]:
    return [view["line"] for view in cast(list[LogView], views)]


def test_all_is_shown_at_once_where_nothing_says_less() -> None:
    kept = Kept(0, 0)
    assert numbers(kept.take(line(1))) == ["1"]
    assert numbers(kept.over()) == []


def test_the_last_lines_of_all_and_then_what_comes() -> None:
    kept = Kept(2, 0)
    for number in range(5):
        assert numbers(kept.take(line(number))) == []
    assert numbers(kept.over()) == ["3", "4"]
    assert numbers(kept.take(line(9))) == ["9"]
    assert numbers(kept.over()) == []


def test_the_last_lines_of_each_module_in_their_order() -> None:
    kept = Kept(0, 2)
    for number, source in enumerate(("jede-a", "cam-a", "jede-b", "jede-a", "gateway-x")):
        kept.take(line(number, source, {"gateway-x": ""}.get(source, source.partition("-")[0])))
    assert numbers(kept.over()) == ["1", "2", "3", "4"]


def test_pods_modules_and_parts_can_be_asked_for() -> None:
    view = cast(StatusView, status([module("jede")]))
    view["modules"][0]["instances"] = [instance("jede", 1, "ready", 0.0, 1) | {"id": "jede-stable-a"}]  # type: ignore[list-item]
    found = sources_of(view)
    assert found["jede-stable-a"] == "jede"
    assert found["jede"] == found["control"] == found["gateway"] == found["openbao"] == ""
