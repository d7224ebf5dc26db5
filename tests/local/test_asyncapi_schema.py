"""AsyncAPI's own JSON Schema, from its own package, accepts the document and refuses one that is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.support.platform import IDI, ROOT
from tests.support.scale import need_part

pytestmark = pytest.mark.requirement("B1")

SOURCE = Path(__file__).parent / "asyncapi_specs"


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    npm = shutil.which("npm")
    need_part("npm", npm, "https://nodejs.org, 20 or newer")
    folder = tmp_path_factory.mktemp("asyncapi")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, folder)
    command = [str(npm), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    need_part("npm's registry", done.returncode == 0, done.stderr.strip()[-300:])
    path = folder / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json"
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def mistakes(schema: dict[str, Any], document: object) -> Iterator[str]:
    for error in jsonschema.Draft7Validator(schema).iter_errors(document):
        yield f"{error.json_path}: {error.message[:200]}"


@pytest.mark.timeout(180)
def test_asyncapis_own_schema_accepts_the_document(schema: dict[str, Any]) -> None:
    done = subprocess.run([IDI, "render", "asyncapi"], cwd=ROOT, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert list(mistakes(schema, document)) == []
    [channel, *_] = document["channels"].values()
    del channel["address"]
    channel["adress"] = "x"
    assert list(mistakes(schema, document))
