"""What this platform needs: its declaration, folders, ports, and its own control."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from idi.api.client import NotRunning
from idi.api.errors import IdiError
from idi.api.finding import Finding
from idi.api.left_over import left_over
from idi.api.place import place
from idi.cli.failure import Failure
from idi.cli.invocation import Invocation
from idi.cli.ports import holder, is_free, next_free
from idi.cli.validate import number, refused

DISK_WANTED, DISK_LEAST = 1024**3, 100 * 1024**2
SOCKET_PATH_LIMIT = 104
PORTS = (("gateway", 8080),)


def declaration(invocation: Invocation) -> Iterator[Finding]:
    from idi.declaration.load import Rejected, load

    try:
        text = invocation.text()
    except Failure as failure:
        yield Finding("declaration", "fail", failure.what, failure.way_out)
        return
    found = load(text, file=invocation.file, environment=invocation.env)
    if isinstance(found, Rejected):
        count = len(found.mistakes)
        more = f" (and {count - 1} more)" if count > 1 else ""
        remedy = f"{invocation.command_line('validate')} lists all of them."
        yield Finding("declaration", "fail", f"{found.mistakes[0]}{more}", remedy)
    else:
        platform = found.platform
        what = f"{invocation.file}: {platform.name}, {number(len(platform.modules), 'module')}"
        if beyond := refused(platform):
            remedy = f"{invocation.command_line('validate')} lists all of it."
            yield Finding("declaration", "warn", f"{what}; idi up refuses it: {beyond[0]}", remedy)
        else:
            yield Finding("declaration", "ok", what)


def control(invocation: Invocation) -> Iterator[Finding]:
    try:
        status = invocation.client().status()
    except NotRunning:
        left = left_over(invocation.file, invocation.env)
        if left:
            names = ", ".join(f"{name} pid {pid}" for name, pid in left[:4])
            more = f" and {len(left) - 4} more" if len(left) > 4 else ""
            remedy = f"{invocation.command_line('up')} takes them over, {invocation.command_line('down')} stops them."
            yield Finding("control", "warn", f"not running, but it left {names}{more}", remedy)
        else:
            yield Finding("control", "ok", "not running")
        return
    except IdiError as error:
        yield Finding("control", "fail", error.message, error.way_out)
        return
    ready = sum(module["ready"] >= module["desired"] for module in status["modules"])
    detail = f"running, pid {status['control']['pid']}, {ready} of {len(status['modules'])} modules ready"
    if ready < len(status["modules"]):
        yield Finding("control", "warn", detail, f"{invocation.command_line('status')} says why.")
    else:
        yield Finding("control", "ok", detail)
    for rejection in status["rejections"]:
        yield Finding(
            "envoy", "fail", f"{rejection['node']} refused {rejection['resource']}: {rejection['message']}"
        )


def ports(invocation: Invocation) -> Iterator[Finding]:
    ours: dict[str, str] = {}
    try:
        status = invocation.client().status()
        ours = {"gateway": status["gateway"]["url"]}
    except IdiError:
        pass
    for name, usual in PORTS:
        url = ours.get(name, "")
        number = int(url.rpartition(":")[2].strip("/") or usual) if url else usual
        if is_free(number):
            yield Finding(f"port {number}", "ok", f"free, for the {name}")
            continue
        pid, program = holder(number)
        who = f"held by {program} (pid {pid})" if pid else "held by a program of another user"
        if url:
            yield Finding(f"port {number}", "ok", f"{who}, the {name} of this platform")
            continue
        other = next_free(number)
        end = f"kill {pid}, or " if pid else ""
        remedy = f"{end}{invocation.command_line(f'up --{name}-port {other or number + 1}')}"
        yield Finding(f"port {number}", "fail", f"{who}; the {name} needs it", remedy)


def folders(invocation: Invocation) -> Iterator[Finding]:
    _, _, state, runtime, keys = place(invocation.file, invocation.env)
    yield folder("state", state)
    yield disk(state)
    if len(os.path.join(runtime, "control")) > SOCKET_PATH_LIMIT:
        yield Finding(
            "runtime", "fail", f"{runtime}: too long for a socket", "Set XDG_RUNTIME_DIR to a shorter folder."
        )
    else:
        yield folder("runtime", runtime)
    yield folder("keys", keys)


def folder(name: str, path: str) -> Finding:
    """Ours, private and writable; or one that can be made."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        parent = os.path.dirname(path)
        while not os.path.exists(parent):
            parent = os.path.dirname(parent)
        if os.access(parent, os.W_OK | os.X_OK):
            return Finding(name, "ok", f"{path} will be made")
        return Finding(
            name, "fail", f"{path} cannot be made: {parent} is not writable", f"Make {parent} writable."
        )
    except OSError as error:
        return Finding(name, "fail", f"{path}: {error.strerror}", "Make it a private folder of yours.")
    if not stat.S_ISDIR(found.st_mode):
        return Finding(name, "fail", f"{path} is a link or no folder", f"rm {path}")
    if found.st_uid != os.getuid():
        return Finding(name, "fail", f"{path} belongs to user {found.st_uid}", f"sudo rm -r {path}")
    if not os.access(path, os.W_OK | os.X_OK):
        return Finding(name, "fail", f"{path} is not writable", f"chmod u+rwx {path}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        return Finding(
            name, "warn", f"{path} is open to others", f"chmod 700 {path}; the next up does it too."
        )
    return Finding(name, "ok", path)


def disk(path: str) -> Finding:
    while not os.path.exists(path):
        path = os.path.dirname(path)
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    detail = f"{free / 2**30:.1f} GiB free at {path}"
    if free < DISK_LEAST:
        return Finding("disk", "fail", detail, "Make room: without it changes are refused (traffic goes on).")
    if free < DISK_WANTED:
        return Finding("disk", "warn", detail, "Logs take up to 16 MiB for each process.")
    return Finding("disk", "ok", detail)


PLATFORM: tuple[Callable[[Invocation], Iterator[Finding]], ...] = (declaration, control, ports, folders)
