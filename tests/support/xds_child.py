"""A replica's process as the chart starts it, but for where its service account lies: TEST_ACCOUNT."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from idi.parts.clients.kubernetes import in_cluster
from idi.xds.__main__ import run
from idi.xds.settings import from_environment

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s xds: %(message)s")
asyncio.run(run(from_environment(), in_cluster(os.environ, Path(os.environ["TEST_ACCOUNT"]))))
