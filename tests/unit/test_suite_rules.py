"""The suite's own rules: unknown requirement ids fail, a missing part is a skip here and a failure in CI."""

from pathlib import Path

import pytest

from tests.support.scale import need_part, scale
from tools import file_length, requirements_table

pytest_plugins = ["pytester"]
ROOT = Path(__file__).resolve().parents[2]


def test_an_unknown_requirement_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makeini(f"[pytest]\npythonpath = {ROOT}\nmarkers = requirement(*ids): x\n")
    pytester.makepyfile("import pytest\n@pytest.mark.requirement('Z9')\ndef test_a(): pass\n")
    result = pytester.runpytest_subprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unknown requirement Z9*"])


def test_counts_follow_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDI_TEST_SCALE", raising=False)
    assert scale(3, 200) == 3
    monkeypatch.setenv("IDI_TEST_SCALE", "full")
    assert scale(3, 200) == 200


def test_a_missing_part_is_a_skip_here_and_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    need_part("envoy", "/usr/bin/envoy", "make setup")
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs consul: make test-parts"):
        need_part("consul", None, "make test-parts")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="consul"):
        need_part("consul", None, "make test-parts")


def test_a_requirement_without_a_test_says_so() -> None:
    page = requirements_table.render({"G1": {"tests/unit/test_a.py::test_b"}})
    assert "| G1 |" in page
    assert "`unit/test_a.py::test_b`" in page
    assert "| R1 | Day 2: backup, restore, upgrade, retention | none yet |" in page


def test_a_long_file_fails_and_a_longish_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "longish.py").write_text("x = 1\n" * 401)
    assert file_length.main([str(tmp_path)]) == 0
    assert "longish.py: notice: 401 lines" in capsys.readouterr().out
    (tmp_path / "long.py").write_text("x = 1\n" * 601)
    assert file_length.main([str(tmp_path)]) == 1
