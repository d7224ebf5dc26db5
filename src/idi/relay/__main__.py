"""python -m idi.relay: what it is to do is in its environment; SIGTERM ends it in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from idi.parts.bus.nats.bus import NatsBus
from idi.relay.serving import Relay
from idi.relay.settings import from_environment


async def main() -> None:
    settings = from_environment()
    relay = Relay(settings, NatsBus(settings.bus_url, settings.user, settings.password))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, relay.stop)
    await relay.run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    asyncio.run(main())
