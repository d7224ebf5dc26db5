"""What a module's process gets of control's own environment: pure.

Little of it is handed on, by an allow list: a module must not come to depend on
what happened to be exported in the terminal of `idi up`, and credentials lying there must not leak. The
folder of IDI's own interpreter comes first on PATH, because a bare machine has no `python`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

HANDED_ON = frozenset(
    {
        "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "JAVA_HOME",
        "GOPATH", "GOCACHE", "GOROOT", "GOMODCACHE", "NVM_DIR", "NODE_PATH",
    }
)  # fmt: skip
HANDED_ON_PREFIXES = ("LC_", "XDG_")


def base(own: Mapping[str, str], interpreter: Path) -> dict[str, str]:
    """What every process gets: the allowed part of `own`, with the interpreter's folder first on PATH."""
    path = own.get("PATH") or "/usr/local/bin:/usr/bin:/bin"
    passed = {
        name: value for name, value in own.items() if name in HANDED_ON or name.startswith(HANDED_ON_PREFIXES)
    }
    return {**passed, "PATH": f"{interpreter.parent}:{path}"}
