"""Rules for every test: known requirement ids, one printed seed, no skip in CI that nobody decided on.

The seed is printed in the header and each test starts from it and from its own name, so that a failure can be seen
again (IDI_TEST_SEED=...) whatever was selected and in whatever order it ran.
"""

import os
import random
import signal
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, settings

from tests.support.requirements import REQUIREMENTS

SEED = int(os.environ.get("IDI_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
# Worker processes of one run share the seed.
os.environ["IDI_TEST_SEED"] = str(SEED)


# A busy machine is no fault of a property. (With CI set Hypothesis does the same by itself.)
if os.environ.get("CI") != "true":
    settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("here")

# A runner that was started in the background ignores these, and everything it starts would too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_header() -> list[str]:
    size = "full" if os.environ.get("IDI_TEST_SCALE") == "full" else "short"
    return [f"counts: {size}; seed: IDI_TEST_SEED={SEED}"]


def marked(item: pytest.Item) -> Iterable[str]:
    """The requirement ids that a test names."""
    for marker in item.iter_markers("requirement"):
        yield from marker.args


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        unknown = [name for name in marked(item) if name not in REQUIREMENTS]
        if unknown:
            raise pytest.UsageError(
                f"{item.nodeid}: unknown requirement {', '.join(map(str, unknown))}; "
                "the ids are in tests/support/requirements.py"
            )


@pytest.fixture
def seeded(request: pytest.FixtureRequest) -> random.Random:
    """Randomness of this test's own, the same again for the same printed seed."""
    return random.Random(f"{SEED}:{request.node.nodeid}")
