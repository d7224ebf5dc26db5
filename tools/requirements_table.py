"""docs/requirements.md: which test is proof of which requirement, from the markers in the tests' source.

The source is read and not imported, so that lint can afford it. What pytest would not collect is not counted:
only functions called `test...`, at the top of a `test_*.py` or in its `Test...` classes. A marker that stands
anywhere else is an error, so that none is overlooked.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

HEAD = """# Requirements and their proof

Made from the markers of the tests by `make docs`; not edited by hand. A requirement without tests has no proof yet.

| id | requirement | tests |
|---|---|---|
"""

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Misplaced(Exception):
    """A marker that belongs to no test."""


def page() -> str:
    return render(proofs(ROOT / "tests"))


def render(tests: dict[str, set[str]]) -> str:
    """The page as text; `tests` maps a requirement to node ids."""
    from tests.support.requirements import REQUIREMENTS

    rows, sections = [], []
    for name, text in REQUIREMENTS.items():
        found = sorted(tests.get(name, ()))
        count = f"[{len(found)}](#{name.lower()})" if found else "none yet"
        rows.append(f"| {name} | {text} | {count} |\n")
        if found:
            items = "".join(f"- `{node.removeprefix('tests/')}`\n" for node in found)
            sections.append(f"\n## {name}\n\n{text}.\n\n{items}")
    return HEAD + "".join(rows) + "".join(sections)


def proofs(folder: Path) -> dict[str, set[str]]:
    """Requirement to the node ids of its tests; raises `Misplaced`."""
    found: dict[str, set[str]] = {}
    for path in sorted(folder.rglob("test_*.py")):
        source = path.read_text(encoding="utf-8")
        if ".mark.requirement" not in source:
            continue
        tree = ast.parse(source, str(path))
        node_id = path.relative_to(folder.parent).as_posix()
        used: set[int] = set()
        for test, markers in marked_in(tree.body, [*module_markers(tree.body)]):
            for marker in markers:
                used.add(id(marker))
                for argument in marker.args:
                    if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                        raise Misplaced(f"{path}:{marker.lineno}: a requirement is named by a plain text")
                    found.setdefault(argument.value, set()).add(f"{node_id}::{test}")
        lost = [marker for marker in markers_in(tree) if id(marker) not in used]
        if lost:
            raise Misplaced(f"{path}:{lost[0].lineno}: this requirement marker belongs to no test")
    return found


def marked_in(
    body: list[ast.stmt], around: list[ast.Call], prefix: str = ""
) -> Iterator[tuple[str, list[ast.Call]]]:
    """Each test below a module or class, with the markers that hold for it."""
    for node in body:
        if isinstance(node, Function) and node.name.startswith("test"):
            yield prefix + node.name, [*around, *decorators(node)]
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            inner = [*around, *decorators(node), *module_markers(node.body)]
            yield from marked_in(node.body, inner, f"{prefix}{node.name}::")


def decorators(node: Function | ast.ClassDef) -> Iterator[ast.Call]:
    for decorator in node.decorator_list:
        yield from markers_in(decorator)


def module_markers(body: list[ast.stmt]) -> Iterator[ast.Call]:
    """What `pytestmark = ...` gives to everything in a module or class."""
    for node in body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets
        ):
            yield from markers_in(node.value)


def markers_in(tree: ast.AST) -> Iterator[ast.Call]:
    """Every `pytest.mark.requirement(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.requirement":
            yield node
