"""Finding kubectl, running it within bounds, and what its words mean."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from idi.api import kubectl
from idi.api.kubectl import Denied, Failed, Missing, NoContext, Unreachable, explain, find, run, words
from idi.parts.clients.program import Program
from idi.parts.errors import PartError

STUB = "echo 'kubectl is not installed; run: components install kubectl' >&2; exit 1"
REAL = """echo '{"clientVersion": {"gitVersion": "v1.34.4"}}'"""


def program(path: Path, script: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubectl, "KUBECTL", Program("kubectl", "IDI_KUBECTL", "no-such-wheel", "kubectl"))


def test_a_stub_on_the_path_is_passed_over(tmp_path: Path, no_wheel: None) -> None:
    program(tmp_path / "stub" / "kubectl", STUB)
    real = program(tmp_path / "real" / "kubectl", REAL)
    (tmp_path / "empty").mkdir()
    path = os.pathsep.join(str(tmp_path / name) for name in ("empty", "stub", "real"))
    assert find({"PATH": path}) == real
    with pytest.raises(
        PartError, match=r"no kubectl on this machine \(.*stub/kubectl does not run\)"
    ) as failure:
        find({"PATH": str(tmp_path / "stub")})
    assert "junzi-idi[kubernetes]" in failure.value.way_out


def test_the_variable_is_first_and_is_not_passed_over(tmp_path: Path) -> None:
    named = program(tmp_path / "mine", REAL)
    assert find({"IDI_KUBECTL": named, "PATH": ""}) == named
    with pytest.raises(PartError, match="is not kubectl"):
        find({"IDI_KUBECTL": program(tmp_path / "stub", STUB), "PATH": str(tmp_path)})
    with pytest.raises(PartError, match="no program"):
        find({"IDI_KUBECTL": str(tmp_path / "none")})


def test_the_wheel_is_before_the_path(tmp_path: Path) -> None:
    program(tmp_path / "kubectl", REAL)
    assert os.path.realpath(find({"PATH": str(tmp_path)})).startswith(sys.prefix)


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_a_run_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match=r"within 0\.3 s"):
        run(python("import time; time.sleep(30)"), timeout_s=0.3)
    with pytest.raises(Unreachable):
        run(python("import os, time; os.close(1); os.close(2); time.sleep(30)"), timeout_s=0.3)
    assert time.monotonic() - began < 5
    monkeypatch.setattr(kubectl, "MOST_BYTES", 1000)
    with pytest.raises(Failed, match="more than 1000"):
        run(python("print('x' * 100_000)"))


def test_what_goes_in_and_what_comes_out_may_be_large() -> None:
    echo = "import sys; d = sys.stdin.buffer.read(); sys.stdout.buffer.write(d); sys.exit(3)"
    said = run(python(echo), b"x" * 1_000_000)
    assert (said.code, len(said.out)) == (3, 1_000_000)
    # One that does not want it says so by its end.
    assert run(python("import sys; sys.exit(4)"), b"x" * 1_000_000).code == 4


def test_it_is_asked_in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run(python("import os; print(os.environ['LC_ALL'])")).out == b"C\n"


def test_its_own_log_is_no_word_to_people() -> None:
    said = 'E1127 11:58:09.5 9 memcache.go:381] "x"\nWarning: old\nerror: it failed\n  because\n'
    assert words(said) == "it failed because"
    assert len(words("x" * 5000)) == kubectl.MOST_WORDS


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Unable to connect to the server: dial tcp: lookup x on y:53: no such host", Unreachable),
        (
            "The connection to the server 127.0.0.1:1 was refused - did you specify the right host",
            Unreachable,
        ),
        ("Unable to connect to the server: net/http: TLS handshake timeout", Unreachable),
        ("You must be logged in to the server (Unauthorized)", Unreachable),
        ("Unable to connect to the server: getting credentials: exec: executable x not found", Unreachable),
        ("error loading config file", Unreachable),
        ("Unable to connect to the server: tls: failed to verify certificate: x509: unknown", Unreachable),
        ("unable to forward port because pod is not running. Current status=Pending", Unreachable),
        ('(Forbidden): pods is forbidden: User "a" cannot list resource "pods"', Denied),
        ('failed to create token: serviceaccounts "x" not found', Missing),
        ('(NotFound): services "x" not found', Missing),
        ('the server doesn\'t have a resource type "x"', Failed),
    ],
)
def test_its_words_have_a_meaning(said: str, kind: type[Exception]) -> None:
    error = explain("/nowhere", "c", "ns", "trying", said)
    assert type(error) is kind
    assert said.removeprefix("(Forbidden): ").removeprefix("(NotFound): ").rstrip(".") in error.message
    assert error.way_out or kind is Failed


def test_the_contexts_that_there_are_are_named(tmp_path: Path) -> None:
    fake = program(tmp_path / "kubectl", "seq 1 20 | sed 's/^/c/'")
    error = explain(fake, "c", "ns", "trying", "context was not found for specified context: c")
    assert type(error) is NoContext
    assert "there is: c1, c2, " in error.message
    assert "c12, and 8 more." in error.message
