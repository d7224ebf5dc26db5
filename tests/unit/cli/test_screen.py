"""Long lines on a terminal: broken between words, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from idi.cli.terminal.screen import Line, folded
from idi.cli.terminal.words import columns


def texts(lines: list[Line]) -> list[str]:
    return ["".join(piece for piece, _ in line) for line in lines]


def test_a_long_line_is_broken_between_words() -> None:
    line: Line = [("  + ", "green"), ("cam", "bold"), ("  2 instances of revision e9ed8cf7", "")]
    assert texts(folded(line, 24, 6)) == ["  + cam  2 instances of", "      revision e9ed8cf7"]
    assert folded(line, 24, 6)[0][1] == ("cam", "bold")
    assert folded(line, 0) == [line]
    assert folded(line, 80) == [line]


def test_a_word_without_room_stays_whole() -> None:
    assert texts(folded("see https://login.example.test/keys for it", 10)) == [
        "see",
        "https://login.example.test/keys",
        "for it",
    ]


def test_a_command_is_not_broken_since_it_may_be_copied() -> None:
    said = "End that, or take another port: idi up --gateway-port 9182"
    assert texts(folded(said, 40)) == ["End that, or take another port:", "idi up --gateway-port 9182"]
    said = "jede has 4 instances by idi scale; idi scale jede=2 goes back to that."
    assert texts(folded(said, 45)) == [
        "jede has 4 instances by idi scale;",
        "idi scale jede=2 goes back to that.",
    ]


WORDS = st.lists(st.text("abcä漢", min_size=1, max_size=12), max_size=12)


@given(WORDS, st.integers(13, 40), st.integers(0, 6))
def test_no_word_is_lost_and_no_line_is_too_wide(words: list[str], width: int, indent: int) -> None:
    lines = texts(folded(" ".join(words), width, indent))
    assert " ".join(lines).split() == words
    for text in lines:
        assert columns(text) <= width or len(text.split()) == 1
