"""The folders of a platform as plain texts: what `paths` wraps, for the command line's fast path.

Neither `pathlib` nor `dataclasses`: on a cold start they cost as much again as everything that
`idi status` needs.
"""

from __future__ import annotations

import os

try:  # hashlib loads OpenSSL, which costs the fast path 4 ms; these are its own fallbacks
    from _sha256 import sha256  # type: ignore[import-not-found]  # Python 3.11
except ImportError:
    try:
        from _sha2 import sha256  # type: ignore[import-not-found]  # from Python 3.12 on
    except ImportError:
        from hashlib import sha256


def place(file: str | os.PathLike[str], environment: str) -> tuple[str, str, str, str, str]:
    """Real path of the file, hash, state folder, runtime folder, key folder; touches nothing."""
    real = os.path.realpath(file)
    hash8 = sha256(f"{real}\0{environment}".encode()).hexdigest()[:8]
    runtime_root = os.environ.get("XDG_RUNTIME_DIR", "")
    runtime = os.path.join(runtime_root, f"idi-{hash8}")
    if not runtime_root or len(runtime) > 60:  # leaves room for the sockets' names
        runtime = f"/tmp/idi-{os.getuid()}-{hash8}"
    data = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(data):
        data = os.path.join(os.path.expanduser("~"), ".local", "share")
    if not os.path.isabs(data):  # neither a variable nor the user database names a home
        from idi.parts.errors import Refused

        raise Refused(
            f"User {os.getuid()} has no home folder, so there is no place for keys outside the checkout.",
            "Set HOME or XDG_DATA_HOME.",
        )
    # Several declarations may lie in one folder: only the usual name is left out of the state's.
    name = os.path.basename(real)
    own = environment if name == "platform.yaml" else f"{name}.{environment}"
    state = os.path.join(os.path.dirname(real), ".idi", own)
    return real, hash8, state, runtime, os.path.join(data, "idi", hash8)


def socket_path(file: str | os.PathLike[str], environment: str, role: str = "") -> str:
    """Where control listens, or what leads to it in this role; `paths_for(file, environment, role).socket`, as a
    text."""
    return os.path.join(place(file, environment)[3], socket_name(role))


def socket_name(role: str) -> str:
    return f"control-{role}" if role else "control"
