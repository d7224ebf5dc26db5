"""One cluster for the session: the project's own, or the one that IDI_TEST_KUBECONFIG names.

`kube` works on both. What breaks a node or looks into the store needs `own`, and is skipped on somebody
else's cluster. There `IDI_TEST_TOOL` names the image of tests/support/cluster/sources/tool that its nodes can pull,
and `IDI_TEST_IMAGES` a file with what `make images PUSH=...` printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from tests.support.cluster.builds import Images
from tests.support.cluster.client import Client
from tests.support.cluster.cluster import Cluster, lacking
from tests.support.cluster.objects import Namespace
from tests.support.scale import need_part

OUTSIDE = os.environ.get("IDI_TEST_KUBECONFIG")


@pytest.fixture(scope="session")
def started() -> Iterator[Cluster | None]:
    """The project's own, with a node for each pool."""
    if OUTSIDE:
        yield None
        return
    lacks = lacking()
    need_part("a test cluster", not lacks, f"this machine lacks {', '.join(lacks)} (make test-parts)")
    with Cluster(f"test-{os.getpid()}") as cluster:
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
    """The images of IDI and of the stand-ins by name, each by digest; one is built when a test asks for it first."""
    if started:
        return Images(started)
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
