"""Numbers and texts as people read them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.cli.terminal.words import (
    age,
    columns,
    cut,
    did_you_mean,
    figure,
    is_environment,
    milliseconds,
    plain,
    ratio,
    seconds_of,
    took,
    wrap,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (12, "12 s"),
        (99, "99 s"),
        (100, "2 min"),
        (3600, "60 min"),
        (7200, "2 h"),
        (3 * 86400, "3 d"),
    ],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "40 ms"), (0.9, "0.9 s"), (3.14, "3.1 s"), (250, "4 min 10 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert took(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01, "<0.1"),
        (0.4, "0.4"),
        (2.0, "2"),
        (12.4, "12"),
        (9999, "9999"),
        (12_300, "12.3k"),
        (2e6, "2.0M"),
    ],
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.0001, "<0.1%"), (0.004, "0.4%"), (0.12, "12%"), (1, "100%")]
)
def test_ratios(value: float, text: str) -> None:
    assert ratio(value) == text


@pytest.mark.parametrize(("value", "text"), [(0.33, "0.3 ms"), (12.2, "12 ms"), (1234, "1.2 s")])
def test_milliseconds(value: float, text: str) -> None:
    assert milliseconds(value) == text


@given(st.integers(0, 4_102_444_800), st.integers(0, 999))
def test_times_are_read_as_the_library_reads_them(seconds: int, thousandths: int) -> None:
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    assert seconds_of(f"{text}Z") == seconds
    assert seconds_of(f"{text}.{thousandths:03d}Z") == pytest.approx(seconds + thousandths / 1000)


@pytest.mark.parametrize("text", ["", "soon", "2026-xx-01T00:00:00Z"])
def test_what_is_no_time_is_the_beginning(text: str) -> None:
    assert seconds_of(text) == 0.0


@given(st.text(), st.integers(8, 60), st.integers(1, 4))
def test_wrapped_lines_keep_to_width_and_number(text: str, width: int, most: int) -> None:
    lines = wrap(plain(text), width, most)
    assert len(lines) <= most
    assert all(len(line) > 0 and columns(line) <= width for line in lines)
    if columns(plain(text)) <= width:
        assert "".join(lines) == plain(text).strip()


@given(st.text())
def test_plain_text_is_one_line_that_moves_no_cursor(text: str) -> None:
    found = plain(text)
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in found)
    assert "\u202e" not in found


def test_cut() -> None:
    assert cut("abcdef", 4) == "abc…"
    assert cut("abcdef", 0) == "abcdef"


def test_the_nearest_name_is_asked_for() -> None:
    assert did_you_mean("stauts", ["status", "up"]) == " Did you mean 'status'?"
    assert did_you_mean("--jsno", ["--json", "--file"]) == " Did you mean '--json'?"
    assert did_you_mean("zzzz", ["status"]) == ""


def test_an_environment_is_no_path() -> None:
    assert is_environment("dev")
    assert is_environment("eu-west-1")
    for name in ("", "../x", "Dev", "a/b", "x\n", "-x", "a" * 40):
        assert not is_environment(name)
