"""What the agent hears of a module that dies in another container of its pod, as a pod is allowed to be there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cluster.base import debian_python
from tests.support.cluster.builds import build
from tests.support.cluster.cluster import Cluster
from tests.support.cluster.objects import Namespace, container

ROOT = Path(__file__).resolve().parents[2]
PORT = 20001

MODULE = f"""
import os, socket, time
listening = socket.create_server(("127.0.0.1", {PORT}))
time.sleep(3)
print(time.time(), flush=True)
os._exit(1)
"""

AGENT = f"""
import asyncio, logging, sys, time
from idi.agent.listening import until_nobody_listens
from idi.parts.targets.readiness import TcpProbe
logging.basicConfig(level=logging.INFO, stream=sys.stdout)

async def main():
    while await TcpProbe({PORT}, 1).ask():
        await asyncio.sleep(0.02)
    await until_nobody_listens({PORT})
    print(time.time(), flush=True)

asyncio.run(main())
"""

RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.requirement("K1", "D1")
def test_the_kernel_tells_of_a_death_in_the_container_beside(
    own: Cluster, namespace: Namespace, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "src/idi", tmp_path / "idi", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "agent.py").write_text(AGENT)
    (tmp_path / "Dockerfile").write_text(
        'ARG BASE\nFROM ${BASE}\nCOPY . /app\nWORKDIR /app\nENTRYPOINT ["python3"]\n'
    )
    made = build(own, tmp_path, "idi-test-agent", bases={"BASE": debian_python()})
    built = own.registry.push_kept(made.manifest, made.blobs, "idi-test/agent")
    namespace.pod(
        "dying",
        restartPolicy="Never",
        securityContext=RESTRICTED,
        containers=[
            container("agent", built, "agent.py"),
            container("module", built, "module.py"),
        ],
    )
    namespace.await_ended("dying")
    died, heard = (
        namespace.kube.kubectl("-n", namespace.name, "logs", "dying", "-c", name)
        for name in ("module", "agent")
    )
    assert "the kernel does not tell" not in heard
    after_ms = 1000 * (float(heard) - float(died))
    print(f"a module's end to the agent's ear: {after_ms:.1f} ms")
    assert after_ms < 300
