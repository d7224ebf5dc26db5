"""A module of a few lines, quick to start (`python -I -S`), whose behaviour its environment sets.

HTTP/1.1 on PORT: `/ready` answers 200, or 503 while the file UNREADY exists; any other path answers with
one variable of its environment by name. IGNORE_TERM: it ends on SIGKILL only. GRANDCHILD: it starts a
process that ignores SIGTERM, in its session, and writes its pid to that file. CRASH: it exits with that
code at once. CHATTER: it writes numbered lines without a pause. HELLO is printed at the start.
"""

import os
import select
import signal
import socket
import sys


def answer(path: str) -> bytes:
    if path == "/ready":
        ready = not os.path.exists(os.environ.get("UNREADY", "/nowhere"))
        status, body = ("200 OK", "yes") if ready else ("503 Service Unavailable", "no")
    else:
        status, body = "200 OK", os.environ.get(path[1:], "")
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def serve() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ["PORT"])))
    listener.listen()
    connections = [listener]
    while True:
        for readable in select.select(connections, [], [])[0]:
            if readable is listener:
                connections.append(listener.accept()[0])
                continue
            try:
                request = readable.recv(65536)
            except OSError:
                request = b""
            if request:
                readable.sendall(answer(request.split(b" ", 2)[1].decode()))
            else:
                connections.remove(readable)
                readable.close()


def main() -> None:
    print(os.environ.get("HELLO", "hello"), flush=True)
    if "CRASH" in os.environ:
        sys.exit(int(os.environ["CRASH"]))
    if "IGNORE_TERM" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "GRANDCHILD" in os.environ and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setpgid(0, 0)
        with open(os.environ["GRANDCHILD"], "w") as file:
            file.write(str(os.getpid()))
        signal.pause()
    if "CHATTER" in os.environ and os.fork() == 0:
        number = 0
        while True:
            sys.stdout.write("".join(f"{number + step:012d}\n" for step in range(100)))
            number += 100
    serve()


main()
