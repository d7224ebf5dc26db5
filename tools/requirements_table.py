"""Write docs/requirements.md from the requirement markers of the tests; `--check` says if it is out of date.

Collected by pytest itself, not by reading source, so a test that is not collected is not counted as proof.
Parameters are left out: a row names test functions.
"""

import contextlib
import io
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "requirements.md"
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

HEAD = """# Requirements and their proof

Made from the markers of the tests by `make docs`; not edited by hand.

| id | requirement | tests |
|---|---|---|
"""


class Collector:
    """A pytest plugin that keeps which test names which requirement."""

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers("requirement"):
                for name in marker.args:
                    self.tests.setdefault(name, set()).add(item.nodeid.split("[")[0])


class Failures:
    """A pytest plugin that keeps why something could not be collected; pytest's own report is not shown."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.errors.append(f"{report.nodeid}: {report.longreprtext}")


def render(tests: dict[str, set[str]]) -> str:
    """The page as text."""
    from tests.support.requirements import REQUIREMENTS

    rows = []
    for name, text in REQUIREMENTS.items():
        proofs = "<br>".join(f"`{node.removeprefix('tests/')}`" for node in sorted(tests.get(name, ())))
        rows.append(f"| {name} | {text} | {proofs or 'none yet'} |\n")
    return HEAD + "".join(rows)


def main(arguments: list[str]) -> int:
    """Write the page, or compare with it."""
    collector, failures = Collector(), Failures()
    options = ["--collect-only", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    with contextlib.redirect_stdout(io.StringIO()):
        status = pytest.main([*options, str(ROOT / "tests")], plugins=[collector, failures])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(
            "\n".join(failures.errors) or f"pytest could not collect the tests ({status!r})", file=sys.stderr
        )
        return 1
    page = render(collector.tests)
    if "--check" not in arguments:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        print("docs/requirements.md is out of date: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
