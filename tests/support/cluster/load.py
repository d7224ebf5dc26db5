"""Clients inside the cluster: each request becomes a line, and they go on until they are told to stop.

Half of them send GET and half POST, each over a connection of its own that it keeps, one request after another. A
request names itself by the end of its path, which the stand-in's `/echo` and `/cpu` give back, also by way of
`/call/PEER/echo`; there both hops count: an answer that only says that the next hop failed is a failure. The lines
are read by `tests.support.history`.
"""

from __future__ import annotations

SCRIPT = r"""
import http.client, json, os, signal, socket, sys, threading, time
url, seconds, workers, pause, patience = sys.argv[1], *map(float, sys.argv[2:6])
token = os.environ.get("TOKEN")
headers = {"authorization": "Bearer " + token} if token else {}
host, _, path = url.removeprefix("http://").partition("/")
path, mark, query = path.partition("?")
stop, lock = threading.Event(), threading.Lock()
signal.signal(signal.SIGTERM, lambda *_: stop.set())

def connected():
    # Who sends nothing back is given up after a second, as between proxies.
    made = http.client.HTTPConnection(host, timeout=1.0)
    made.connect()
    made.sock.settimeout(patience)
    return made

def what(answer, body, name):
    # Why it is no success, who answered, and the name that came back.
    if answer.status != 200:
        return f"{body[:160]!r}", [], ""
    said = json.loads(body)
    by, last = [said.get("instance", "")], said
    if "peer_status" in said:
        last = said["peer"]
        if said["peer_status"] != 200 or not isinstance(last, dict):
            return f"next hop: {said['peer_status']} {str(last)[:140]}", by, ""
        by.append(last.get("instance", ""))
    return "", by, str(last.get("path", "")).rpartition("/")[2]

def work(number):
    client, method = f"{os.uname().nodename}.{number}", ("GET", "POST")[number % 2]
    connection, count = None, 0
    while not stop.is_set():
        name, status, by, echoed = f"{client}-{count}", 0, [], ""
        sent = time.time()
        try:
            connection = connection or connected()
            connection.request(method, f"/{path}/{name}{mark}{query}", headers=headers)
            answer = connection.getresponse()
            body = answer.read()
            why, by, echoed = what(answer, body, name)
            status = answer.status if answer.status != 200 or not why else 502
            if answer.getheader("connection") == "close":
                connection.close()
                connection = None
        except Exception as error:
            why = repr(error)
            if connection:
                connection.close()
            connection = None
        line = json.dumps([client, count, method, round(sent, 4), round(time.time(), 4), status, why, by, echoed])
        with lock:
            print(line, flush=True)
        count += 1
        stop.wait(pause if status == 200 else max(pause, 0.1))

threads = [threading.Thread(target=work, args=(number,)) for number in range(int(workers))]
for one in threads: one.start()
stop.wait(seconds)
stop.set()
for one in threads: one.join()
"""

TELL = "import os, signal; os.kill(1, signal.SIGTERM)"
"""In the pod: the clients finish what they have begun, and the pod ends."""
