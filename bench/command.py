"""What the command itself costs: `idi --help` and `idi status`, against a Python that starts and does nothing.

All three in turn, with the same interpreter, from a folder whose platform is up with the nine modules. Between two
`idi status` lies more than a second, so that each really asks all sidecars for their figures.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from bench.figure import Figure, Options, Spread, main
from idi.control.figures import FRESH_S
from tests.support.platform import NINE, Platform, platform


def measure(options: Options) -> Sequence[Figure]:
    with platform(NINE) as one:
        one.up()
        sides = (
            timed(one, [sys.executable, "-c", "pass"]),
            timed(one, one.command("--help")),
            timed(one, one.command("status"), FRESH_S),
        )
        found = [tuple(side() for side in sides) for _ in range(options.repetitions(10, 40))]
    bare = Spread.of(pass_ for pass_, _, _ in found).value * 1000
    status = Spread.of(status for _, _, status in found).value * 1000
    aid = Spread.of(help_ for _, help_, _ in found).value * 1000
    return [
        Figure(
            "idi status to python -c pass",
            Spread.ratios((status, pass_) for pass_, _, status in found),
            at_most=4.0,
            detail={"of": f"{status:.0f} ms to {bare:.0f} ms"},
        ),
        Figure(
            "idi --help to python -c pass",
            Spread.ratios((help_, pass_) for pass_, help_, _ in found),
            detail={"of": f"{aid:.0f} ms to {bare:.0f} ms"},
        ),
    ]


def timed(one: Platform, argv: list[str], pause_s: float = 0.0) -> Callable[[], float]:
    """Seconds of one run, from before its start to after its end."""

    def run() -> float:
        time.sleep(pause_s)
        begun = time.perf_counter()
        subprocess.run(
            argv,
            cwd=one.folder,
            env=one.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
        )
        return time.perf_counter() - begun

    return run


if __name__ == "__main__":
    sys.exit(main("command", measure))
