"""One cluster for the session: the project's own, or the one that IDI_TEST_KUBECONFIG names.

`kube` works on both. What breaks a node or looks into the store needs `own`, and is skipped on somebody
else's cluster. There `IDI_TEST_TOOL` names the image of tests/support/cluster/sources/tool that its nodes can pull,
and `IDI_TEST_IMAGES` a file with what `make images PUSH=...` printed.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.support.cluster.builds import Images
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster, lacking
from tests.support.cluster.environment import Environment
from tests.support.cluster.layout import POOLS, cache
from tests.support.cluster.objects import Namespace
from tests.support.cluster.programs import exclusive
from tests.support.scale import need_part

HERE = Path(__file__).parent
OUTSIDE = os.environ.get("IDI_TEST_KUBECONFIG")
LONGEST = (
    *("environment_failures", "environment_changes", "environment_scaling", "secrets", "environment_events"),
    *("environment", "propagation", "environment_nine", "by_hand", "environment_views"),
)
"""Files in the order in which they are begun, the others after them: two run beside each other, and end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {f"test_{name}": at for at, name in enumerate(LONGEST)}
    ours = [item for item in items if item.path.parent == HERE]
    ours.sort(key=lambda item: places.get(item.path.stem, len(places)))
    others = iter(ours)
    items[:] = [next(others) if item.path.parent == HERE else item for item in items]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is marked `quiet` has the machine for itself, with what it sets up; before its time limit begins."""
    if item.path.parent != HERE:
        return (yield)
    with beside(alone=item.get_closest_marker("quiet") is not None):
        return (yield)


@contextmanager
def beside(*, alone: bool) -> Iterator[None]:
    """Who waits to be alone holds the gate, so that nobody else goes on before."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "tests.lock").open("w") as held:
        with exclusive(cache() / "tests.gate.lock"):
            fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


@pytest.fixture(scope="session")
def started() -> Iterator[Cluster | None]:
    """The project's own, with a node for each pool, and one more for what is of none: several environments share it."""
    if OUTSIDE:
        yield None
        return
    lacks = lacking()
    need_part("a test cluster", not lacks, f"this machine lacks {', '.join(lacks)} (make test-parts)")
    with Cluster(f"test-{os.getpid()}", [*POOLS, POOLS[0]]) as cluster:
        print(f"cluster, seconds to each step: {cluster.took}")
        yield cluster


@pytest.fixture(scope="session")
def kube(started: Cluster | None) -> Client:
    return started.client if started else Client(Path(str(OUTSIDE)))


@pytest.fixture(scope="session")
def own(started: Cluster | None) -> Cluster:
    if started is None:
        pytest.skip("works on the project's own cluster only, and IDI_TEST_KUBECONFIG names another")
    return started


@pytest.fixture(scope="session")
def tool(started: Cluster | None) -> str:
    """The image of the tests' own program."""
    if started:
        return started.tool
    if not os.environ.get("IDI_TEST_TOOL"):
        pytest.skip("IDI_TEST_TOOL names no image of tests/support/cluster/sources/tool")
    return os.environ["IDI_TEST_TOOL"]


@pytest.fixture(scope="session")
def images(started: Cluster | None) -> Mapping[str, str]:
    """The images of IDI and of the stand-ins by name, each by digest.

    One is built when a test asks for it first, unless `make cluster-parts` did. That may take a minute, longer than a
    test has by default: mark it with a timeout.
    """
    if started:
        need_part("buildah", shutil.which("buildah"), "make test-parts installs it")
        return Images(started, started.programs.get("helm"))
    named = os.environ.get("IDI_TEST_IMAGES")
    if not named:
        pytest.skip("IDI_TEST_IMAGES names no file with what `make images PUSH=...` printed")
    return {name: one["image"] for name, one in yaml.safe_load(Path(named).read_text()).items()}


@pytest.fixture
def namespace(kube: Client, tool: str, request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace of the test's own."""
    made = Namespace.made(kube, tool, request.node.name)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def helm(started: Cluster | None) -> Path:
    """Helm's program."""
    found = started.programs.get("helm") if started else None
    named = found or os.environ.get("IDI_HELM") or shutil.which("helm")
    if not named:
        pytest.skip("no helm: IDI_HELM or PATH")
    return Path(named)


MODULES = """\
  jede:
    image: {image}
    calls: [cam]
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
    routes: [{{path: /v1/jede/, scopes: [jede.read]}}, {{path: /open/jede/, public: true}}]
  cam:
    image: {image}
    instances: 2
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
    routes: [{{path: /v1/cam/, scopes: [cam.read]}}, {{path: /open/cam/, public: true}}]
  dere:
    image: {image}
    readiness: {{http: /ready, every: 500ms}}
    resources: {{cpu: 20m, memory: 64MiB}}
    routes: [{{path: /v1/dere/, scopes: [dere.read]}}]
"""
CLIENTS = """\
gateway:
  clients: {pilot: {scopes: [cam.read]}}
  address_limit: {requests: 100000, every: 1s, burst: 100000, anonymous: {requests: 100000, burst: 100000}}"""


@pytest.fixture(scope="session")
def environment(
    kube: Client,
    images: Mapping[str, str],
    helm: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Environment]:
    """Three modules in an environment of their own: jede calls cam, dere calls nobody. Up once for the session;
    whoever changes it brings it back."""
    made = Environment(tmp_path_factory.mktemp("environment"), kube, images, helm, f"crew-{uuid4().hex[:4]}")
    with made.ending():
        made.declare(MODULES.format(image=images["standin-python"]), more=CLIENTS)
        made.done("up")
        yield made
