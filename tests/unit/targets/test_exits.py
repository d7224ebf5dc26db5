"""Exit codes that are the shell's own words, and what helps."""

import pytest

from idi.parts.targets.exits import exited, is_end, remedy


def test_other_codes_are_the_programs_own() -> None:
    for code in (0, 1, 12, 125, 128):
        said = exited(code, ["/bin/sh: 1: exec: pyhton: not found"])
        assert said == f"ended with exit code {code}"
        assert remedy(said) == ""


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
    said = exited(127, ["starting", line])
    assert said == "ended with exit code 127: pyhton was not found"
    assert remedy(f"hello-1 failed: {said}; 5 times in a row.") == (
        "Is pyhton spelt right, and is it on the PATH that the first idi up had? A program beside the "
        "declaration is written ./pyhton."
    )


def test_a_program_that_may_not_be_run_is_named() -> None:
    said = exited(126, ["/bin/sh: 1: exec: ./x.sh: Permission denied"])
    assert said == "ended with exit code 126: ./x.sh cannot be run"
    assert remedy(said) == (
        "./x.sh must be a program and executable (chmod +x), or be named after what runs it, such as: sh ./x.sh."
    )


def test_without_the_shells_words_it_is_said_without_the_name() -> None:
    assert exited(127) == "ended with exit code 127: the command was not found"
    assert exited(126, ["nothing of use"]) == "ended with exit code 126: the command cannot be run"
    assert exited(127, ["sh: \x1b[2J: not found"]) == "ended with exit code 127: the command was not found"
    assert remedy(exited(127)).startswith("Is its name spelt right, ")
    assert remedy(exited(126)).startswith("It must be a program ")


def test_an_end_is_told_from_waiting() -> None:
    ends = [
        exited(127),
        "ended with exit code 1; 5 times in a row",
        "was killed by SIGKILL",
        "its sidecar was killed by SIGKILL",
        "ended while control was not running",
        "jede-1 cannot start: /nowhere: No such file or directory.",
    ]
    waits = [
        "",
        "waiting for /ready (9th try: connection refused)",
        "waiting for 'sh check' (2nd try: it ended with exit code 1)",
        "waiting for its sidecar",
        "is tried again",
        "not ready within 60s: /ready answered 503",
    ]
    assert [is_end(reason) for reason in ends] == [True] * len(ends)
    assert [is_end(reason) for reason in waits] == [False] * len(waits)


@pytest.mark.requirement("S1")
@pytest.mark.parametrize(
    ("reason", "helps"),
    [
        ("secret a/b is not set; idi secrets set a/b", "It starts by itself when that is set."),
        ("its secrets cannot be had: OpenBao is sealed", ""),
    ],
)
def test_for_want_of_a_secret_nothing_else_is_a_reason(reason: str, helps: str) -> None:
    assert is_end(reason)
    assert remedy(reason) == helps
