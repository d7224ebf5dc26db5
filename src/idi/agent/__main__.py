"""python -m idi.agent: what it is to do is in its environment; SIGTERM ends it in order, Envoy last."""

from __future__ import annotations

import asyncio
import logging
import sys

from idi.agent.life import run
from idi.agent.settings import from_environment
from idi.parts.errors import PartError


def main() -> int:
    try:
        asyncio.run(run(from_environment()))
    except PartError as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s agent: %(message)s")
    sys.exit(main())
