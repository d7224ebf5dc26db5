"""What is made from the code: the pages are current, and no marker of a test is overlooked."""

from pathlib import Path

import pytest

from tools import generated, requirements_table

ROOT = Path(__file__).resolve().parents[2]


def test_what_differs_is_named_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "FILES", {"docs/a.md": lambda: "new\n", "b.json": lambda: "same\n"})
    (tmp_path / "b.json").write_text("same\n")
    assert generated.stale(tmp_path) == ["docs/a.md"]
    assert generated.write(tmp_path) == ["docs/a.md"]
    assert (tmp_path / "docs" / "a.md").read_text() == "new\n"
    assert generated.stale(tmp_path) == []


def test_the_same_is_made_twice() -> None:
    assert {name: make() for name, make in generated.FILES.items()} == {
        name: make() for name, make in generated.FILES.items()
    }


def test_markers_of_functions_classes_and_modules_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_a.py").write_text(
        "import pytest\n"
        "pytestmark = [pytest.mark.requirement('A1')]\n"
        "@pytest.mark.requirement('B1', 'B2')\n"
        "@pytest.mark.parametrize('x', [pytest.param(1, marks=pytest.mark.requirement('C1'))])\n"
        "async def test_one(x): ...\n"
        "@pytest.mark.requirement('D1')\n"
        "class TestMore:\n"
        "    def test_two(self): ...\n"
        "    def helper(self): ...\n"
    )
    both = {"tests/test_a.py::test_one", "tests/test_a.py::TestMore::test_two"}
    one, two = {"tests/test_a.py::test_one"}, {"tests/test_a.py::TestMore::test_two"}
    assert requirements_table.proofs(folder) == {"A1": both, "B1": one, "B2": one, "C1": one, "D1": two}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@pytest.mark.requirement('A1')\ndef helper(): ...\n", "test_a.py:2: .*belongs to no test"),
        ("@pytest.mark.requirement(NAME)\ndef test_a(): ...\n", "test_a.py:2: .*plain text"),
    ],
)
def test_a_marker_that_cannot_count_is_an_error(tmp_path: Path, source: str, message: str) -> None:
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_a.py").write_text("import pytest\n" + source)
    with pytest.raises(requirements_table.Misplaced, match=message):
        requirements_table.proofs(folder)
