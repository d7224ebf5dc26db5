"""The table at several widths against golden files, and what must hold at any width.

`IDI_GOLDEN=write pytest tests/unit/cli/test_table.py` writes the files anew; look at them before committing.
"""

import os
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idi.api.types import StatusView
from idi.cli.terminal.live import cropped
from idi.cli.terminal.screen import Line, painted
from idi.cli.terminal.table import listed, short, table
from idi.cli.terminal.words import columns
from tests.command.fake_control import module, part, status

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_800_000_000.0
REASON = "waiting for /ready (3rd try: connection refused)"
LONG = (
    "jede-1 ended with exit status 1 four times in 20 s; its last words were: KeyError: 'DATABASE_PASSWORD', "
    "which it reads at start. It is started again in 8 s, and the module counts as failed until then."
)


def view(modules: list[dict[str, Any]], **changes: Any) -> StatusView:
    return cast(StatusView, status(modules, **changes))


def mixed() -> StatusView:
    return view(
        [
            module("jede", count=2, since=NOW - 12, figures=(3.5, 0.0, 12.2)),
            module("cam", "starting", count=2, ready=1, since=NOW - 1, reason=REASON, port=20021),
            module("vtl", "failed", since=NOW - 400, reason=LONG, port=20031),
            module("sfl", "stopping", count=1, ready=0, since=NOW - 3, port=20041),
            module("rame", count=9, since=NOW - 90_000, figures=(12_345.0, 0.021, 1840.0), port=20051),
            module("eat", count=0, since=NOW - 7200, figures=(0.0, 0.0, 0.0), port=20061),
        ],
        parts=[
            part("openbao", since=NOW - 20),
            part("gateway", "unready", since=NOW - 2, reason="Envoy answers 503 on /ready"),
        ],
        rejections=[
            {
                "node": "gateway",
                "resource": "route/edge",
                "message": "Proto constraint validation failed (RouteValidationError.Match)",
                "since": "2027-01-15T08:00:00Z",
            }
        ],
        warnings=[
            "All modules run as your user: on a laptop the wall between them is convenience, not defence."
        ],
    )


def text_of(lines: list[Line]) -> str:
    return "\n".join(painted(line, colour=False) for line in lines) + "\n"


@pytest.mark.parametrize("width", [0, 120, 100, 80, 60, 40, 24])
def test_golden(width: int) -> None:
    found = text_of(table(mixed(), NOW, width, "idi call jede /   idi logs vtl   idi down"))
    path = GOLDEN / f"table-{width}.txt"
    if os.environ.get("IDI_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8")


def test_who_was_turned_away_is_counted() -> None:
    view = mixed()
    figures = {"window_s": 1.0, "requests_per_s": 0.0, "errors_ratio": 0.0, "p95_ms": 0.0, "denied": 3}
    ready = next(module for module in view["modules"] if module["state"] == "ready")
    ready["figures"] = figures  # type: ignore[typeddict-item]
    view["parts"][0]["figures"] = figures | {"denied": 1}  # type: ignore[typeddict-item]
    text = text_of(table(view, NOW, 0, ""))
    assert ", 3 refused" in text
    assert ", 1 refused" in text


NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
STATES = st.sampled_from(["starting", "ready", "unready", "stopping", "failed"])
MODULES = st.builds(
    lambda name, state, count, reason, figures: module(
        name, state, count=count, since=NOW - 5, reason=reason, figures=figures
    ),
    NAMES,
    STATES,
    st.integers(0, 30),
    st.text(max_size=300),
    st.none() | st.tuples(st.floats(0, 1e7), st.floats(0, 1), st.floats(0, 1e6)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(MODULES, max_size=5),
    st.integers(20, 200),
    st.text(max_size=200),
    st.sampled_from(["", "http://127.0.0.1:8080", "https://gateway.example.com:8443"]),
)
def test_no_line_is_wider_than_the_terminal(
    modules: list[dict[str, Any]], width: int, text: str, url: str
) -> None:
    parts = [part("openbao", "failed", since=NOW, reason=text), part("gateway")]
    found = table(
        view(modules, warnings=[text], parts=parts, gateway={"url": url}),
        NOW,
        width,
        "idi call jede /   idi logs",
    )
    for line in found:
        shown = painted(line, colour=False)
        assert columns(shown) <= width
        assert "\n" not in shown
        assert "\x1b" not in shown


@settings(max_examples=60, deadline=None)
@given(MODULES, st.integers(44, 200))
def test_the_state_is_always_a_word(one: dict[str, Any], width: int) -> None:
    found = text_of(table(view([one]), NOW, width))
    assert one["state"] in found
    assert f"{one['ready']}/{one['desired']}" in found


def test_colour_only_repeats_what_the_words_say() -> None:
    lines = table(mixed(), NOW, 100)
    plain = text_of(lines)
    painted_text = "\n".join(painted(line, colour=True) for line in lines)
    assert "\x1b[1;31mfailed" in painted_text
    assert "\x1b[32mready" in painted_text
    for word in ("failed", "starting", "stopping", "unready"):
        assert word in plain


def test_columns_stay_put_while_states_change() -> None:
    before = text_of(
        table(view([module("jede", "starting", since=NOW - 1, reason="x")]), NOW, 100)
    ).splitlines()
    after = text_of(table(view([module("jede", since=NOW - 2)]), NOW, 100)).splitlines()
    assert before[2] == after[2]
    assert before[2].index("WHERE") == after[3].index("127.0.0.1") == before[3].index("x")


def test_what_places_have_in_common_is_written_once_in_a_row() -> None:
    assert short(["127.0.0.1:1", "127.0.0.1:2", "10.0.0.9:2", "127.0.0.1:3"], ":") == [
        "127.0.0.1:1",
        ":2",
        "10.0.0.9:2",
        "127.0.0.1:3",
    ]
    assert short(["cam-6d5f-9kq7c", "cam-6d5f-x2x4v", "cam-77aa-b4b4b"], "-") == [
        "cam-6d5f-9kq7c",
        "-x2x4v",
        "cam-77aa-b4b4b",
    ]


def test_restarts_are_no_addresses_and_stay_where_there_is_little_room() -> None:
    assert listed(["127.0.0.1:1", ":2", ":3"], 0, "1 restart") == "127.0.0.1:1, :2, :3, 1 restart"
    many = ["127.0.0.1:20001", ":20002", ":20003"]
    assert listed(many, 36, "1 restart") == "127.0.0.1:20001 + 2 more, 1 restart"
    assert listed(many, 26, "1 restart") == "1 restart"
    assert listed(many, 26) == "127.0.0.1:20001 + 2 more"


def test_all_ready_says_so() -> None:
    found = text_of(table(view([module("a"), module("b", count=2)]), NOW, 100))
    assert "2 of 2 ready." in found


def test_a_change_that_runs_is_named() -> None:
    assert "scale jede=3" in text_of(table(view([module("a")], changing="scale jede=3"), NOW, 100))


@given(st.integers(0, 60), st.integers(1, 40))
def test_a_block_has_at_most_the_rows_of_the_terminal(number: int, rows: int) -> None:
    lines: list[Line] = [[(str(at), "")] for at in range(number)]
    found = cropped(lines, rows)
    assert len(found) <= rows
    if number > rows > 2:
        assert found[0] == lines[0]
        assert found[-1] == lines[-1]
        assert str(number - rows + 1) in found[-2][0][0]


def test_on_a_cluster_pods_are_where_a_module_is() -> None:
    """By their names, which kubectl and idi logs take; an address says little, and 127.0.0.1 less."""
    pods = module("jede", count=3, since=NOW - 9)
    for one, name in zip(pods["instances"], ("x2x4v", "9kq7c", "b7b7b"), strict=True):
        one |= {"id": f"jede-stable-6db5955cb7-{name}", "address": "10.90.16.14:20101", "node": "n1"}
    wide = text_of(table(view([pods], target="kubernetes"), NOW, 0))
    assert "jede-stable-6db5955cb7-9kq7c, -b7b7b, -x2x4v" in wide
    assert "10.90" not in wide
    assert "jede-stable-6db5955cb7-9kq7c + 2 more" in text_of(
        table(view([pods], target="kubernetes"), NOW, 76)
    )
