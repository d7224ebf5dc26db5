"""The runtime folder may vanish (a logout does that): traffic goes on and the platform heals by itself."""

from __future__ import annotations

import shutil
import subprocess
import time

import pytest

from tests.local.test_registration import HELLO
from tests.support.platform import platform

DECLARATION = """
platform: shop
modules:
  hello: {run: python hello.py, calls: [greeter]}
  greeter: {run: python hello.py}
"""


@pytest.mark.requirement("R1")
def test_it_is_made_again_and_nothing_stops() -> None:
    with platform(DECLARATION, {"hello.py": HELLO}) as shop:
        shop.up()
        token = shop.token()
        pids = {i["pid"] for m in shop.status()["modules"] for i in m["instances"]}
        control = shop.control_pid()
        shutil.rmtree(shop.paths.runtime)
        end = time.monotonic() + 30
        while shop.run("status", check=False).returncode != 0:
            done = subprocess.run(
                ["curl", "-sSf", "-H", f"authorization: Bearer {token}", f"{shop.url}/v1/hello/peer"],
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            assert time.monotonic() < end, shop.control_log()
            time.sleep(0.2)
        assert shop.control_pid() == control
        assert {i["pid"] for m in shop.status()["modules"] for i in m["instances"]} == pids
        shop.run("scale", "greeter=2")  # a new instance needs a certificate, so OpenBao is back too
        assert shop.module("greeter")["ready"] == 2
