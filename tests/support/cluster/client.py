"""A cluster as its administrator sees it, whoever runs it: its own API and the official command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from tests.support.cluster.api import Api
from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import cache

COMMAND_S = 60.0


class Client:
    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    @cached_property
    def api(self) -> Api:
        return Api.from_kubeconfig(self.kubeconfig)

    def command(self, *arguments: str) -> Sequence[str]:
        kubectl = Path(sys.executable).with_name("kubectl")
        # What it remembers of an API server, it would leave in the user's home.
        remembers = cache() / "kubectl"
        return [str(kubectl), f"--kubeconfig={self.kubeconfig}", f"--cache-dir={remembers}", *arguments]

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float = COMMAND_S) -> str:
        """As a person would use it; its standard output. Raises `ClusterError` with what it said."""
        done = subprocess.run(
            self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise ClusterError(f"kubectl {' '.join(arguments)}: {said}")
        return done.stdout
