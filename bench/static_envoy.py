"""Envoys with a configuration of their own, for comparison: one that only answers, one that only forwards.

Nothing of IDI is in them. Everything is Envoy's default but what is written here.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from idi.parts.gateway.envoy.binary import ENVOY

START_S = 10.0


def answering(port: int, body: str) -> dict[str, Any]:
    """Every request gets this body."""
    action = {"direct_response": {"status": 200, "body": {"inline_string": body}}}
    return _document(port, action, [])


def forwarding(port: int, upstream: int) -> dict[str, Any]:
    """One route, one upstream: the least that a proxy does."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}
    assignment = {
        "cluster_name": "upstream",
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }
    cluster = {"name": "upstream", "type": "STATIC", "load_assignment": assignment}
    return _document(port, {"route": {"cluster": "upstream"}}, [cluster])


@contextmanager
def envoy(folder: Path, port: int, config: dict[str, Any]) -> Iterator[subprocess.Popen[bytes]]:
    """A running Envoy with one worker, listening on this port of its configuration."""
    file = folder / f"static-{port}.json"
    file.write_text(json.dumps(config))
    argv = [
        *(str(ENVOY.find()), "--config-path", str(file), "--concurrency", "1"),
        *("--disable-hot-restart", "--log-level", "error"),
    ]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for(port, process)
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[Any]) -> None:
    """Until somebody listens on the port; the process must not end before."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            time.sleep(0.01)
    raise RuntimeError(f"nobody listens on {port} after {START_S:g} s")


def _document(port: int, action: dict[str, Any], clusters: list[dict[str, Any]]) -> dict[str, Any]:
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "static",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **action}]}
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{types}.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "static",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}
