"""The house's import contracts hold, and each one really catches a break.

A contract that is written wrongly keeps passing for ever. So each is given, in a copy of the source, the smallest
import that it forbids, and must fail by name.
"""

import ast
import configparser
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ROOT / "src" / "idi"

# contract -> (file in a copy of the source, the import that breaks it)
BREAKS = {
    "rooms": [
        ("world/planted.py", "import idi.control"),
        ("plan/planted.py", "import idi.traffic.planted_target"),
        ("newroom/__init__.py", ""),
        ("module/__init__.py", "import idi.declaration"),
    ],
    "kinds": [
        ("parts/targets/planted.py", "import idi.parts.gateway"),
        ("parts/clients/planted.py", "import idi.parts.store"),
        ("parts/newkind/__init__.py", ""),
    ],
    "cli": [
        ("cli/planted.py", "def late() -> None:\n    import idi.control"),
        ("cli/planted.py", "import idi.parts.store"),
        ("cli/planted.py", "import aiohttp"),
    ],
    "pure": [
        ("traffic/planted.py", "import asyncio"),
        ("plan/planted.py", "from time import monotonic"),
        ("world/planted.py", "import os.path"),
        ("ledger/planted.py", "import secrets"),
        ("declaration/planted.py", "from pathlib import Path"),
    ],
    "envoy": [
        ("control/planted.py", "from envoy.config.core.v3 import address_pb2"),
        ("parts/targets/planted.py", "import grpc.aio"),
        ("api/planted.py", "from google.protobuf import any_pb2"),
    ],
    "sqlite": [("parts/audit/planted.py", "import sqlite3")],
    "cryptography": [
        ("control/planted.py", "from cryptography import x509"),
        ("api/planted.py", "from joserfc import jwt"),
    ],
    "yaml": [("parts/gateway/planted.py", "import yaml")],
}

# What the one owner of a package may import must not be reported.
ALLOWED = [
    ("parts/gateway/planted.py", "import grpc\nfrom google.protobuf import any_pb2\nimport envoy"),
    ("parts/store/planted.py", "import sqlite3"),
    ("ledger/planted.py", "from cryptography.hazmat.primitives import hashes"),
    ("declaration/planted.py", "import yaml"),
    ("cli/planted.py", "import idi.api"),
]


def contracts() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def named(contract: str, option: str) -> list[str]:
    return contracts()[f"importlinter:contract:{contract}"][option].split()


def imports_of(tree: Path, *contract: str) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the source below a folder, and nowhere else."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from importlinter.cli import lint_imports as run;"
        "sys.exit(run(config_filename=sys.argv[2], no_cache=True,"
        "             limit_to_contracts=tuple(sys.argv[3:])))"
    )
    return subprocess.run(
        [sys.executable, "-c", code, str(tree), str(ROOT / ".importlinter"), *contract],
        capture_output=True,
        text=True,
        cwd=tree,
        timeout=60,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the source that a test may break."""
    shutil.copytree(ROOMS, tmp_path / "idi", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def plant(tree: Path, file: str, text: str) -> None:
    path = tree / "idi" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in (path.parent, *path.parent.parents):
        if folder == tree:
            break
        (folder / "__init__.py").touch()
    path.write_text(text + "\n", encoding="utf-8")
    if "planted_target" in text:
        (tree / "idi" / "traffic" / "planted_target.py").touch()


def test_every_contract_has_a_planted_break() -> None:
    sections = [
        name.split(":")[2] for name in contracts().sections() if name.startswith("importlinter:contract:")
    ]
    assert sorted(sections) == sorted(BREAKS)


@pytest.mark.parametrize(
    ("contract", "file", "text"),
    [(contract, file, text) for contract, breaks in BREAKS.items() for file, text in breaks],
)
def test_a_planted_break_is_caught(copy: Path, contract: str, file: str, text: str) -> None:
    plant(copy, file, text)
    done = imports_of(copy, contract)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract}:" in done.stdout
    assert "BROKEN" in done.stdout
    where = "idi." + file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    assert where in done.stdout or where.rpartition(".")[2] in done.stdout


def test_what_the_owners_import_is_kept(copy: Path) -> None:
    for file, text in ALLOWED:
        plant(copy, file, text)
    done = imports_of(copy)
    assert done.returncode == 0, done.stdout + done.stderr


def pure_rooms() -> list[Path]:
    """The rooms below parts in the order of layers, as far as they are built; `module` is for others' programs."""
    layers = [name.strip("()") for name in named("rooms", "layers")]
    below = layers[layers.index("parts") + 1 :]
    return [ROOMS / name for name in below if name != "module" and (ROOMS / name).is_dir()]


def test_every_pure_room_is_under_the_pure_contract() -> None:
    assert sorted(f"idi.{room.name}" for room in pure_rooms()) == sorted(named("pure", "source_modules"))


def test_no_built_room_is_still_in_parentheses() -> None:
    optional = [name.strip("()") for name in named("rooms", "layers") if name.startswith("(")]
    assert [name for name in optional if (ROOMS / name / "__init__.py").exists()] == []


def test_pure_rooms_call_no_builtin_that_touches_the_world() -> None:
    found = []
    for room in pure_rooms():
        for path in room.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                    if node.func.id in {"open", "print", "input", "exec", "eval", "__import__", "breakpoint"}:
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.func.id}")
    assert found == []
