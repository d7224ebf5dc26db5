"""What a module is given: exactly the documented variables, references in `run` and `config`, several ports, and
externals, seen from inside real modules.
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import IDI, ROOT, Platform, free_port, platform
from tests.support.showing_module import Echo, Tcp

SHOWING = (ROOT / "tests" / "support" / "showing_module.py").read_text()

DECLARATION = """
platform: shop
modules:
  alpha:
    run: python showing.py ${port} --cam ${peer.cam.address} --admin ${peer.cam.admin.url} --gateway ${gateway.url}
    calls: [cam, warehouse, partner]
    config:
      GREETING: "it's $${not.a.reference} \\"quoted\\" $HOME"
      WAREHOUSE: "${peer.warehouse.address}"
      CAM_LINES: "${peer.cam.lines.address}"
      CAM_ADMIN: "${peer.cam.admin.url}"
      NUMBER: 8080
  cam:
    run: python showing.py ${port} --tcp ${port.lines} --data ${data_dir} & python showing.py ${port.admin}
    ports: {http: http, admin: http, lines: tcp}
    storage: {size: 1GiB}
    config: {OWN: cam}
  quiet:
    run: python showing.py ${port}
externals:
  warehouse: {address: 127.0.0.1:WAREHOUSE, protocol: tcp}
  partner: {address: 127.0.0.1:PARTNER, protocol: http}
"""

SHELL = {"PWD", "OLDPWD", "SHLVL", "_"}
"""A shell's own, which of them depends on which shell it is."""


@pytest.fixture(scope="module")
def outside() -> Iterator[tuple[int, int]]:
    """Two things that IDI does not run: a warehouse that echoes lines, and a partner that speaks HTTP."""
    from http.server import ThreadingHTTPServer

    from tests.support.showing_module import Handler

    servers: list[socketserver.TCPServer] = [
        Tcp(("127.0.0.1", free_port()), Echo),
        ThreadingHTTPServer(("127.0.0.1", free_port()), Handler),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield servers[0].server_address[1], servers[1].server_address[1]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def shop(outside: tuple[int, int]) -> Iterator[Platform]:
    text = DECLARATION.replace("WAREHOUSE, p", f"{outside[0]}, p").replace("PARTNER, p", f"{outside[1]}, p")
    with platform(text, {"showing.py": SHOWING}) as one:
        one.exported = {
            "TZ": "Europe/Vienna",
            "LC_ALL": "C.UTF-8",
            "AWS_SECRET_ACCESS_KEY": "leaked",
            "SSH_AUTH_SOCK": "/leaked",
            "PYTHONPATH": "",
            "PORT": "1",
            "DERE_URL": "http://leaked",
            "IDI_DATA_DIR": "/leaked",
            "OTEL_EXPORTER_OTLP_HEADERS": "leaked",
        }
        one.up()
        yield one


def environment(shop: Platform, module: str) -> dict[str, str]:
    found = shop.ask(f"/v1/{module}/environment", shop.token()).json()
    assert isinstance(found, dict)
    return found


@pytest.mark.requirement("S1", "T4")
def test_a_module_gets_exactly_what_is_documented(shop: Platform) -> None:
    found = environment(shop, "alpha")
    page = (ROOT / "docs" / "reference" / "environment.md").read_text()
    always = {name for name, where in re.findall(r"^\| `(\w+)` \| (\w+) \|", page, re.M) if where == "always"}
    handed_on = {"HOME", "LANG", "LC_ALL", "TZ", "PATH", "IDI_SEAT"}
    config = {"GREETING", "WAREHOUSE", "CAM_LINES", "CAM_ADMIN", "NUMBER"}
    peers = {"CAM_URL", "PARTNER_URL"}
    assert set(found) - SHELL == always | {"PORT"} | handed_on | config | peers

    assert found["IDI_MODULE"] == "alpha"
    assert found["IDI_INSTANCE"] == "alpha-1"
    assert (found["IDI_ENV"], found["IDI_VERSION"]) == ("dev", "dev")
    assert found["GATEWAY_URL"] == shop.url
    assert found["OTEL_SERVICE_NAME"] == "alpha"
    assert "service.instance.id=alpha-1" in found["OTEL_RESOURCE_ATTRIBUTES"]
    [one] = shop.instances("alpha")
    assert one["address"] == f"127.0.0.1:{found['PORT']}"
    assert found["GREETING"] == 'it\'s ${not.a.reference} "quoted" $HOME'
    assert found["NUMBER"] == "8080"
    assert found["PATH"].split(":")[0] == str(IDI.parent)
    assert Path(found["PWD"]) == shop.folder
    assert "leaked" not in str(found)


@pytest.mark.requirement("S1", "G2")
def test_what_is_another_modules_stays_with_it(shop: Platform) -> None:
    cam, quiet = environment(shop, "cam"), environment(shop, "quiet")
    assert cam["OWN"] == "cam"
    assert Path(cam["IDI_DATA_DIR"]).is_dir()
    assert Path(cam["IDI_DATA_DIR"]).is_relative_to(shop.folder / ".idi")
    assert not [name for name in cam if name.endswith("_URL") and name != "GATEWAY_URL"]
    assert "IDI_DATA_DIR" not in quiet
    assert not [name for name in quiet if name.endswith("_URL") and name != "GATEWAY_URL"]
    assert not {"OWN", "GREETING", "WAREHOUSE"} & set(quiet)


@pytest.mark.requirement("S1")
def test_references_in_run_become_arguments(shop: Platform) -> None:
    found = environment(shop, "alpha")
    arguments = shop.ask("/v1/alpha/arguments", shop.token()).json()
    assert arguments == [
        found["PORT"], "--cam", found["CAM_URL"].removeprefix("http://"), "--admin", found["CAM_ADMIN"],
        "--gateway", shop.url,
    ]  # fmt: skip
    cam = environment(shop, "cam")
    arguments = shop.ask("/v1/cam/arguments", shop.token()).json()
    assert arguments[0] == cam["PORT"]
    assert arguments[4] == cam["IDI_DATA_DIR"]


@pytest.mark.requirement("G2", "S4")
def test_every_port_of_a_peer_and_every_external_is_reached(shop: Platform) -> None:
    token = shop.token()
    for path, expected in (
        ("/v1/alpha/get/CAM_URL", "ready cam-1"),
        ("/v1/alpha/get/CAM_ADMIN", "ready cam-1"),
        ("/v1/alpha/echo/CAM_LINES", "hello"),
        ("/v1/alpha/echo/WAREHOUSE", "hello"),
        ("/v1/alpha/get/PARTNER_URL", "ready None"),
    ):
        answer = shop.ask(path, token)
        assert (answer.status_code, answer.text) == (200, expected), path
    found = environment(shop, "alpha")
    # Three ports, three sockets: nothing is multiplexed behind its back.
    assert len({found["CAM_URL"], found["CAM_ADMIN"], found["CAM_LINES"]}) == 3


@pytest.mark.requirement("D1")
def test_down_ends_everything_and_leaves_what_is_kept(shop: Platform) -> None:
    """Last, since it takes the platform down."""
    kept = Path(environment(shop, "cam")["IDI_DATA_DIR"]) / "kept"
    kept.write_text("kept")
    pids = shop.processes()
    # cam's line starts a second program in the background: it goes with it.
    assert len(pids) >= 2 * 3 + 2 + 1
    done = shop.down()
    assert "nothing is left running" in done.stdout
    assert shop.processes() == []
    assert shop.run("status", check=False).returncode == 3
    assert kept.read_text() == "kept"
    assert sorted(path.name for path in shop.paths.runtime.glob("*")) == []
    assert shop.audit()["size"]
    again = shop.down()
    assert again.returncode == 0
    assert "not running" in again.stdout
