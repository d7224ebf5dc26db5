"""The pages and files that are made from the code: `make docs` writes them, `--check` says which are out of date.

Each comes from the thing that it describes (the loader's shapes, the parsers, the wire types, the tests' markers),
so it is never edited by hand and cannot drift.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]


def declaration() -> str:
    from idi.declaration.reference import reference

    return reference()


def schema() -> str:
    from idi.declaration.schema import schema

    return document(schema())


def commands() -> str:
    from idi.cli.reference import reference

    return reference()


def control_api() -> str:
    from idi.api.openapi import openapi

    return document(openapi())


def requirements() -> str:
    from tools.requirements_table import page

    return page()


def module_sdk() -> str:
    from tools.sdk_reference import page

    return page()


def document(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


FILES: dict[str, Callable[[], str]] = {
    "docs/reference/declaration.md": declaration,
    "docs/reference/commands.md": commands,
    "docs/reference/control-api.json": control_api,
    "docs/reference/module-sdk.md": module_sdk,
    "docs/requirements.md": requirements,
    "platform.schema.json": schema,
}


def stale(root: Path) -> list[str]:
    """Which files differ from what would be written now, or are not there."""
    return [name for name, make in FILES.items() if current(root / name) != make()]


def current(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def write(root: Path) -> list[str]:
    """Write what differs; its names."""
    changed = stale(root)
    for name in changed:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name](), encoding="utf-8")
    return changed


def main(arguments: list[str]) -> int:
    from tools.requirements_table import Misplaced

    try:
        if "--check" not in arguments:
            for name in write(ROOT):
                print(f"wrote {name}")
            return 0
        found = stale(ROOT)
    except Misplaced as error:
        print(error, file=sys.stderr)
        return 1
    if found:
        print(f"out of date: {', '.join(found)}: make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
