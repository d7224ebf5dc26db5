"""Which command lines the shell is told to become."""

import subprocess

import pytest

from idi.parts.targets.local.process import shell


@pytest.mark.parametrize(
    "line",
    [
        "python -m standins.python",
        "node server.js",
        "./run --name='a b' \"$PORT\"",
        "  go-server -p $PORT ",
        "run > out",
    ],
)
def test_a_simple_command_takes_the_shells_place(line: str) -> None:
    assert shell(line) == ("/bin/sh", "-c", f"exec {line}")


@pytest.mark.parametrize(
    "line",
    [
        "cd web && node server.js",
        "A=1 node server.js",
        "a; b",
        "a | b",
        "a\nb",
        "run $(cat args)",
        "run `cat args`",
        "run 2>&1",
        "exec node server.js",
        "cd /",
        "",
        " ",
    ],
)
def test_anything_else_stays_as_it_is(line: str) -> None:
    assert shell(line) == ("/bin/sh", "-c", line)


@pytest.mark.parametrize(
    "line", ["echo 'a b' $HOME", "printf %s x > /dev/stdout", "A=1 env", "[ 1 = 1 ]", ": x", "command -v sh"]
)
def test_the_outcome_is_the_same(line: str) -> None:
    def run(argv: tuple[str, ...]) -> tuple[int, bytes]:
        done = subprocess.run(
            argv, capture_output=True, env={"HOME": "/h", "PATH": "/usr/bin:/bin"}, check=False
        )
        return done.returncode, done.stdout

    assert run(shell(line)) == run(("/bin/sh", "-c", line))
