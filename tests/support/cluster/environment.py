"""An environment on the test cluster, brought up as a user does it: by the command, in a folder with a declaration."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster import load
from tests.support.cluster.client import Client
from tests.support.cluster.group import ClusterError
from tests.support.cluster.layout import API
from tests.support.cluster.objects import LOCKED
from tests.support.history import Request, read

IDI = Path(sys.executable).with_name("idi")
COMMAND_S = 300.0
NON_ROOT = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}


FILE = Path(__file__).resolve().parents[3] / "platform.yaml"
NINE = {"jede": 2, "dere": 1, "vtl": 1, "cti": 1, "eat": 1, "sfl": 1, "cam": 2, "pas": 1, "rame": 2}


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


@dataclass
class Environment:
    """`folder` holds platform.yaml; `images` are references in the cluster's registry."""

    folder: Path
    kube: Client
    images: Mapping[str, str]
    helm: Path
    platform: str
    env: str = "staging"
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return f"{self.platform}-{self.env}"

    @property
    def context(self) -> str:
        return self.kube.kubectl("config", "current-context").strip()

    def declare(self, modules: str, *, more: str = "", target: str = "", events: bool = False) -> None:
        """Write platform.yaml: `modules` in YAML below `modules:`, `more` beside it, `target` within the target."""
        names = ("control", "sidecar", *(["relay"] if events else []))
        ours = ", ".join(f'{name}: "{self.images[name]}"' for name in names)
        (self.folder / "platform.yaml").write_text(
            f"platform: {self.platform}\n{more}\nmodules:\n{modules}\n"
            f"environments:\n  {self.env}:\n    target:\n      kubernetes:\n"
            f"        context: {self.context}\n        dns: [{API}/32]\n        images: {{{ours}}}\n{target}"
        )

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Down and away afterwards, also where it did not come up: it would take room from others."""
        try:
            yield
        finally:
            try:
                self.idi("down")
            finally:
                self.kube.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false")

    def command(self, *words: str) -> dict[str, Any]:
        """`idi WORDS --env ENV` as subprocess takes it."""
        return self._command(*self.words(*words)[1:])

    def _command(self, *words: str) -> dict[str, Any]:
        return {"args": [str(IDI), *words], "cwd": self.folder, "env": self.place()}

    def words(self, *words: str) -> list[str]:
        return [str(IDI), *words, "--env", self.env]

    def place(self) -> dict[str, str]:
        """The environment of a command."""
        (self.folder / "home").mkdir(exist_ok=True)
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder / "home"),
            "KUBECONFIG": str(self.kube.kubeconfig),
            "IDI_HELM": str(self.helm),
            **self.variables,
        }

    def idi(self, *words: str, timeout_s: float = COMMAND_S) -> Said:
        """`idi WORDS --env ENV`, as from a terminal that is none."""
        return self.exactly(*words, "--env", self.env, timeout_s=timeout_s)

    def exactly(self, *words: str, timeout_s: float = COMMAND_S) -> Said:
        """`idi WORDS`, whatever environment they name."""
        done = subprocess.run(**self._command(*words), capture_output=True, text=True, timeout=timeout_s)
        return Said(done.returncode, done.stdout, done.stderr)

    def done(self, *words: str, timeout_s: float = COMMAND_S) -> Said:
        """The same, and it has to be done."""
        said = self.idi(*words, timeout_s=timeout_s)
        assert said.code == 0, f"idi {' '.join(words)}: {said.code}\n{said.out}\n{said.err}\n{self.told()}"
        return said

    def kubectl(self, *words: str, stdin: str | None = None, timeout_s: float = 60.0) -> str:
        return self.kube.kubectl("-n", self.namespace, *words, stdin=stdin, timeout_s=timeout_s)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", "pods", "-l", selector, "-o", "json"))[
            "items"
        ]
        return found

    def python(self, pod: str, container: str, script: str, *words: str, timeout_s: float = 60.0) -> str:
        """What a Python script says inside a container."""
        return self.kubectl(
            "exec", pod, "-c", container, "--", "python", "-c", script, *words, timeout_s=timeout_s
        )

    def told(self) -> str:
        """What helps to understand a failure."""
        found = []
        for words in (
            ("get", "pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", "control-0", "--tail=40"),
        ):
            try:
                found.append(self.kubectl(*words)[-4000:])
            except Exception as error:
                found.append(str(error))
        return "\n".join(found)

    def runner(
        self,
        name: str,
        script: str,
        *words: str,
        labels: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> str:
        """A pod of one's own in the namespace that runs a script; its name."""
        pod = {
            "metadata": {"name": name, "labels": dict(labels or {"tests": name})},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "securityContext": NON_ROOT,
                "containers": [
                    {
                        "name": "main",
                        "image": self.images["standin-python"],
                        "command": ["python", "-c", script, *words],
                        "env": [{"name": key, "value": value} for key, value in (variables or {}).items()],
                        "securityContext": LOCKED,
                        "resources": {
                            "requests": {"cpu": "50m", "memory": "64Mi"},
                            "limits": {"memory": "256Mi"},
                        },
                    }
                ],
                **spec,
            },
        }
        self.kube.api.create(f"/api/v1/namespaces/{self.namespace}/pods", pod)
        return name

    def ended(self, name: str, timeout_s: float = 120.0) -> str:
        """What a runner said once it has ended; it goes then."""
        self.until(
            lambda: self.phase(name) in ("Succeeded", "Failed"),
            timeout_s,
            f"the end of {name}",
        )
        said = self.kubectl("logs", name)
        self.kubectl("delete", "pod", name, "--wait=false")
        return said

    def load(
        self,
        name: str,
        path: str,
        seconds: float,
        *,
        workers: int = 4,
        pause_s: float = 0.02,
        patience_s: float = 20.0,
        token: str = "",
        to: str = "",
        **spec: Any,
    ) -> str:
        """Clients in a pod, for so long at most (`history` ends it before): requests to the gateway, or to the address
        `to`, at a path that ends with `/echo`; each takes no longer than `patience_s`."""
        url = f"http://{to or f'gateway.{self.namespace}.svc'}:8080{path}"
        words = (url, *(str(number) for number in (seconds, workers, pause_s, patience_s)))
        self.runner(name, load.SCRIPT, *words, variables={"TOKEN": token}, **spec)
        self.until(lambda: self.phase(name) == "Running", 60, f"{name} to run")
        return name

    def phase(self, pod: str) -> str:
        return self.kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}")

    def history(self, load_name: str, timeout_s: float = 120.0, *, stop: bool = False) -> list[Request]:
        """What became of every request of a load, once it has ended; `stop` ends it."""
        if stop and self.phase(load_name) == "Running":
            # What tells it is in the same container, and ends with it.
            with suppress(ClusterError):
                self.python(load_name, "main", load.TELL)
        return read(self.ended(load_name, timeout_s))

    @staticmethod
    def until(holds: Callable[[], object], timeout_s: float, what: str) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
            time.sleep(0.1)

    def ready(self) -> dict[str, int]:
        """Ready instances of each module, as `idi status` says."""
        return {one["name"]: one["ready"] for one in self.done("status", "--json").document["modules"]}


def declare_nine(made: Environment) -> None:
    """Write the project's own platform.yaml for it: the same file as on a laptop, with the images that there are."""
    text = FILE.read_text()
    assert text.count("image: standins/python") == len(NINE)
    text = text.replace("image: standins/python", f"image: {made.images['standin-python']}")
    text = re.sub(r"^platform: junzi$", f"platform: {made.platform}", text, flags=re.M)
    ours = ", ".join(f'{name}: "{made.images[name]}"' for name in ("control", "sidecar", "relay"))
    target = f"target: {{kubernetes: {{context: {made.context}, dns: [{API}/32], images: {{{ours}}}}}}}"
    text = text.replace("target: {kubernetes: {context: staging}}", target)
    # Volumes of a test are small, and its one general node has two processors for several environments.
    text = text.replace("storage: {size: 10GiB}", "storage: {size: 64MiB}")
    assert text.count("resources: {cpu: 100m, ") == 1
    text = text.replace("resources: {cpu: 100m, ", "resources: {cpu: 20m, ")
    (made.folder / "platform.yaml").write_text(text)
