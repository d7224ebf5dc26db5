"""Run a program that ends with whoever started it, however that one ends: `python leash.py PROGRAM ARGUMENT...`.

Whoever starts this holds the other end of its standard input, which the kernel closes with that process. Linux could
signal the program itself then, other systems could not. Run as a file, not as a module: it needs nothing of the
package.
"""

from __future__ import annotations

import os
import signal
import sys
import threading


def main() -> None:
    nothing = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    program = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=nothing)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(program, signal.SIGKILL))

    def hold() -> None:
        while os.read(0, 4096):
            pass
        os.kill(program, signal.SIGKILL)

    threading.Thread(target=hold, daemon=True).start()
    _, status = os.waitpid(program, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
