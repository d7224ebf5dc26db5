"""python -m idi.xds: a replica of the plane; what it is to do is in its environment, SIGTERM ends it.

Nothing is to be finished at the end: its proxies go to another replica, with all that they have.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Iterator

from idi.parts.clients.collector import quiet_collector
from idi.parts.clients.kubernetes import Access, Kubernetes, in_cluster
from idi.parts.clients.token_review import TokenReviews
from idi.parts.errors import PartError
from idi.parts.gateway.envoy.replicas.replica import Replica
from idi.xds.settings import Settings, from_environment

REMEMBERED_S = 2.0
"""A proxy proves itself when it connects, seldom; and nobody tells a replica that a pod is no more."""


async def run(settings: Settings, access: Access) -> None:
    """Until it is told to end."""
    quiet_collector()
    async with Kubernetes(access) as client, asyncio.TaskGroup() as tasks:
        reviews = TokenReviews(client, access.namespace, good_s=REMEMBERED_S)
        replica = tasks.create_task(Replica(settings.control, settings.listen, reviews.verify).run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, replica.cancel)


def main() -> int:
    code = 0
    try:
        asyncio.run(run(from_environment(), in_cluster()))
    except* PartError as group:
        for error in leaves(group):
            logging.getLogger(__name__).error("%s", error)
        code = 1
    return code


def leaves(group: BaseExceptionGroup[PartError]) -> Iterator[BaseException]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from leaves(each)
        else:
            yield each


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s xds: %(message)s")
    sys.exit(main())
