"""What a platform needs of the machine, whatever it declares."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator

from idi.api.finding import Finding
from idi.cli.invocation import Invocation

OLDEST_PYTHON = (3, 11)
OLDEST_GLIBC = (2, 31)
FILES_WANTED, FILES_LEAST = 4096, 256
MEMORY_WANTED = 512 * 1024 * 1024
FIRST_YEAR, LAST_YEAR = 2025, 2100


def python(_: Invocation) -> Iterator[Finding]:
    version = ".".join(str(number) for number in sys.version_info[:3])
    detail = f"{version}, {sys.executable}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield Finding("python", "fail", detail, "Install Python 3.11 or newer and set up again.")
    else:
        yield Finding("python", "ok", detail)


def system(_: Invocation) -> Iterator[Finding]:
    name = os.uname()
    detail = f"{name.sysname} {name.release}, {name.machine}"
    if sys.platform == "darwin":
        yield Finding("system", "warn", detail, "macOS is not run by us; Linux is what is tested.")
        return
    if not sys.platform.startswith("linux"):
        yield Finding("system", "fail", detail, "Use Linux, or Windows through WSL2.")
        return
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        libc = ""
    numbers = tuple(int(part) for part in libc.removeprefix("glibc ").split(".")[:2] if part.isdigit())
    if not numbers:
        remedy = "The engines' programs are built for glibc; on musl name others in IDI_ENVOY, IDI_BAO and IDI_NATS."
        yield Finding("system", "warn", f"{detail}, no glibc", remedy)
    elif numbers < OLDEST_GLIBC:
        yield Finding(
            "system", "fail", f"{detail}, {libc}", "glibc 2.31 or newer is needed (Debian 11, Ubuntu 20.04)."
        )
    else:
        yield Finding("system", "ok", f"{detail}, {libc}")


def kernel(_: Invocation) -> Iterator[Finding]:
    """Processes are watched through pidfds, so that a number used again is never taken for another."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except AttributeError:
        state = "warn" if sys.platform == "darwin" else "fail"
        yield Finding(
            "kernel", "warn" if state == "warn" else "fail", "no pidfd", "Linux 5.3 or newer has it."
        )
    except OSError as error:
        yield Finding(
            "kernel",
            "fail",
            f"pidfd: {error.strerror}",
            "Linux 5.3 or newer has it; a sandbox may forbid it.",
        )
    else:
        yield Finding("kernel", "ok", "pidfd works")


def engines(_: Invocation) -> Iterator[Finding]:
    from idi.api.engines import engines as every

    for engine in every():
        if engine.problem:
            yield Finding(engine.name, "fail", engine.problem, engine.way_out)
            continue
        detail = f"{engine.version}, {engine.licence}, {engine.path}"
        if not engine.version.startswith(f"{engine.wanted}."):
            remedy = f"{engine.wanted} is what is tested; make setup installs it."
            yield Finding(engine.name, "warn", detail, remedy)
        else:
            yield Finding(engine.name, "ok", detail)


def files(_: Invocation) -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(hard)
    detail = f"{soft} open files (hard limit {most})"
    enough = soft == resource.RLIM_INFINITY or soft >= FILES_WANTED
    if enough:
        yield Finding("open files", "ok", detail)
    elif soft < FILES_LEAST:
        yield Finding("open files", "fail", detail, f"ulimit -n {FILES_WANTED}")
    else:
        yield Finding(
            "open files",
            "ok" if soft >= 1024 else "warn",
            detail,
            "" if soft >= 1024 else f"ulimit -n {FILES_WANTED}",
        )


def memory(_: Invocation) -> Iterator[Finding]:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            found = dict(line.split(":", 1) for line in lines if ":" in line)
        free = int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return
    detail = f"{free / 2**30:.1f} GiB available"
    if free < MEMORY_WANTED:
        yield Finding(
            "memory", "warn", detail, "Each instance's sidecar takes about 16 MB, each module what it takes."
        )
    else:
        yield Finding("memory", "ok", detail)


def clock(invocation: Invocation) -> Iterator[Finding]:
    """Certificates and tokens are good for a time: a clock that is far off makes all of them bad."""
    now = time.time()
    detail = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    year = time.gmtime(now).tm_year
    newest = written(invocation)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        yield Finding(
            "clock", "fail", detail, "Set the clock (timedatectl set-ntp true): certificates depend on it."
        )
    elif newest > now + 60:
        remedy = "The clock was set back; certificates made before may not be good yet. Set it right."
        yield Finding(
            "clock", "warn", f"{detail}, but the state was written {newest - now:.0f} s later", remedy
        )
    else:
        yield Finding("clock", "ok", detail)


def written(invocation: Invocation) -> float:
    """When the state folder was written last."""
    from idi.api.place import place

    try:
        return os.stat(place(invocation.file, invocation.env)[2]).st_mtime
    except OSError:
        return 0.0


MACHINE: tuple[Callable[[Invocation], Iterator[Finding]], ...] = (
    python,
    system,
    kernel,
    engines,
    files,
    memory,
    clock,
)
