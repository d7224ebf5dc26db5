"""Entry point. TLS is the sidecar's matter, so the import of ssl (4 MB, 10 ms) is kept away from asyncio."""

import sys

if "ssl" not in sys.modules:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # an import of it now fails; asyncio copes with that

from standins.python.app import main

if __name__ == "__main__":
    sys.exit(main())
