"""Exit codes that are the shell's own words."""

import pytest

from idi.cli.exits import explained, remedy

ENDED = "hello-1 failed: ended with exit code 127; 5 times in a row."


def test_what_the_code_means_is_beside_it() -> None:
    assert (
        explained(ENDED) == "hello-1 failed: ended with exit code 127 (command not found); 5 times in a row."
    )
    assert explained("ended with exit code 126") == "ended with exit code 126 (it cannot be run)"
    for other in ("ended with exit code 1", "ended with exit code 1270", "was killed by SIGKILL", ""):
        assert explained(other) == other
        assert remedy(other, ["sh: 1: x: not found"]) == ""


@pytest.mark.parametrize(
    "line",
    [
        "/bin/sh: 1: exec: pyhton: not found",
        "/bin/sh: 1: pyhton: not found",
        "/bin/sh: line 1: exec: pyhton: not found",
        "bash: line 1: pyhton: command not found",
        "/usr/bin/env: ‘pyhton’: No such file or directory",
        "env: pyhton: No such file or directory",
    ],
)
def test_the_command_that_was_not_found_is_named(line: str) -> None:
    assert remedy(ENDED, ["starting", line]).startswith("pyhton was not found: ")


def test_a_program_that_may_not_be_run_is_named() -> None:
    reason = "ended with exit code 126"
    assert remedy(reason, ["/bin/sh: 1: exec: ./x.sh: Permission denied"]) == (
        "./x.sh cannot be run: it must be a program and executable (chmod +x), or be named after what runs it, "
        "such as: sh ./x.sh."
    )


def test_without_the_shells_words_it_is_said_without_the_name() -> None:
    assert remedy(ENDED, []).startswith("Its command was not found: ")
    assert remedy("ended with exit code 126", ["nothing of use"]).startswith("Its command cannot be run: ")
