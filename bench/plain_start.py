"""A plain script, as somebody would write it who needs no platform: start everything at once, wait until it answers.

It reads a list of processes (JSON on stdin), starts them all, asks each until it is there and prints their pids as
JSON. `start` compares it with `idi up`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from typing import Any

POLL_S = 0.005
WAIT_S = 60.0


def there(asked: dict[str, Any]) -> bool:
    """One HTTP request to a port or a Unix socket; its answer begins as it should."""
    family = socket.AF_UNIX if "socket" in asked else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as link:
        link.settimeout(2.0)
        try:
            link.connect(asked["socket"] if "socket" in asked else ("127.0.0.1", asked["port"]))
            link.sendall(
                f"GET {asked['path']} HTTP/1.1\r\nhost: script\r\nconnection: close\r\n\r\n".encode()
            )
            head = link.recv(64)
        except OSError:
            return False
    return head.startswith(asked.get("begins", "HTTP/1.1 ").encode())


def main() -> int:
    processes = json.load(sys.stdin)
    started = []
    for each in processes:
        with open(each["log"], "ab") as log:
            process = subprocess.Popen(
                each["argv"],
                cwd=each["cwd"],
                env=each["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process.pid)
        print(json.dumps(process.pid), flush=True)
    waiting = [each["asked"] for each in processes]
    deadline = time.monotonic() + WAIT_S
    while waiting := [asked for asked in waiting if not there(asked)]:
        if time.monotonic() > deadline:
            print(f"not there after {WAIT_S:g} s: {waiting}", file=sys.stderr)
            return 1
        time.sleep(POLL_S)
    return 0


if __name__ == "__main__":
    sys.exit(main())
