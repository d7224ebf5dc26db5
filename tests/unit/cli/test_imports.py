"""The rooms' arrows are held by import-linter; within the command line nothing may go in a circle either."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

CLI = Path(__file__).resolve().parents[3] / "src" / "idi" / "cli"


def named(path: Path) -> set[str]:
    """The modules of `idi.cli` that a file imports, also later, inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("idi.cli."):
            found.add(str(node.module).removeprefix("idi.cli."))
    return found


def test_no_module_of_the_command_line_imports_itself_by_way_of_others() -> None:
    graph = {".".join(path.relative_to(CLI).with_suffix("").parts): named(path) for path in CLI.rglob("*.py")}
    assert len(graph) > 50
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
