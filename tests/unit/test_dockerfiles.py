"""What every Dockerfile here keeps to: nobody's user, bases that can be replaced, and nothing fetched but them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.image_context import NAMES, Context

COMPILERS = ('["python", "-m", "compileall", ', '["go", "build", ')


def instructions(name: str) -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", "", Context(name, Path()).dockerfile.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_nobody_in_the_end(name: str) -> None:
    last = instructions(name)[[kind for kind, _ in instructions(name)].index("FROM") :]
    users = [rest for kind, rest in last if kind == "USER"]
    assert users[-1:] == ["65532:65532"]


@pytest.mark.parametrize("name", NAMES)
def test_its_bases_are_arguments_with_a_public_default_by_tag(name: str) -> None:
    found = instructions(name)
    assert {rest.split()[0] for kind, rest in found if kind == "FROM"} <= {"${BASE}", "${BUILDER}"}
    before = found[: [kind for kind, _ in found].index("FROM")]
    for kind, rest in before:
        assert kind == "ARG"
        assert re.fullmatch(r"(BASE|BUILDER)=(scratch|docker\.io/library/\w+:[\w.-]+)", rest)


@pytest.mark.parametrize("name", NAMES)
def test_it_fetches_nothing_and_needs_no_shell(name: str) -> None:
    for kind, rest in instructions(name):
        assert kind != "ADD"
        assert kind != "RUN" or rest.startswith(COMPILERS)
        assert kind not in ("CMD", "ENTRYPOINT") or rest.startswith("[")
