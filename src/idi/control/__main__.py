"""`python -m idi.control`: started by the command line, detached; its output is the control log.

Exit codes: 0 ended as asked, 75 another control holds this platform's lock, otherwise the code of the
reason, which is also left in the state folder for whoever started it.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys

from idi.api.paths import paths_for
from idi.control.settings import Settings, settings_in


def main() -> int:
    gc.disable()  # what is made until `quiet_collector` stays: walking it meanwhile costs a tenth of it
    parser = argparse.ArgumentParser(prog="python -m idi.control")
    parser.add_argument(
        "--cluster", metavar="NAMESPACE", help="run inside a cluster, as the pod of this namespace"
    )
    parser.add_argument("--file")
    parser.add_argument("--env", required=True)
    parser.add_argument("--directory")
    parser.add_argument("--gateway-port", type=int, default=8080)
    parser.add_argument("--console-port", type=int, default=8800)
    parser.add_argument("--ahead", action="store_true")
    arguments = parser.parse_args()
    if arguments.cluster:
        return in_cluster(arguments.cluster, arguments.env)
    if not (arguments.file and arguments.directory):
        parser.error("--file and --directory are needed, or --cluster")
    settings = Settings(
        paths=paths_for(arguments.file, arguments.env),
        environment=arguments.env,
        directory=os.path.realpath(arguments.directory),
        gateway_port=arguments.gateway_port,
        console_port=arguments.console_port,
        ahead=arguments.ahead,
    )
    from idi.control.main import start

    return start(settings)


def in_cluster(namespace: str, environment: str) -> int:
    from idi.control.main import start
    from idi.parts.errors import IdiError

    try:
        settings = settings_in(namespace, environment)
    except IdiError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return start(settings)


if __name__ == "__main__":
    sys.exit(main())
