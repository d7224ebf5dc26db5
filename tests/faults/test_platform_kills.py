"""Control killed at any moment of any change, on real parts: the next command always converges.

One small platform goes through a seeded row of changes. In each, control is killed at a moment somewhere in the
change's usual time (and a little beyond). Then somebody types the next command, as people do, and everything has to
be as it says: the right instances, nobody left over, a log that holds, traffic.
"""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.platform import ROOT, Platform, alive, platform, until
from tests.support.scale import scale
from tests.support.steady import figure

SMALL = (ROOT / "tests" / "support" / "small_module.py").read_text()
DECLARATION = """
platform: shop
defaults: {readiness: {http: /ready, every: 500ms}, grace: 2s}
modules:
  jede: {run: python -I -S small.py, calls: [cam, sfl], instances: 2}
  cam: {run: python -I -S small.py, calls: [sfl]}
  sfl: {run: python -I -S small.py, storage: {size: 1GiB}}
"""
USUAL_S = {"up": 3.0, "scale": 0.8, "restart": 1.0, "down": 1.2}
"""About how long each takes here after control has its order; the moment of the kill is drawn from a bit more."""
RUNS = scale(6, 40)


@dataclass
class Operator:
    """Somebody who keeps asking for things, and what has to be true of the platform at any time."""

    one: Platform
    chance: random.Random
    up: bool = False
    counts: dict[str, int] = field(default_factory=lambda: {"jede": 2, "cam": 1, "sfl": 1})

    def ask_and_kill(self, action: str) -> str:
        """Ask for a change and kill control during it; what was done, for people."""
        command = {
            "up": ("up", "--detach", *self.one.ports),
            "down": ("down",),
            "restart": ("restart", self.chance.choice(("jede", "cam", "sfl"))),
            "scale": ("scale", self.new_counts()),
        }[action]
        before = self.control()
        process = self.one.start(*command)
        control = until(lambda: self.control(not_this=0 if self.up else before), 20.0)
        moment = self.chance.random() ** 1.5 * 1.2 * USUAL_S[action]
        time.sleep(moment)
        if alive(control):
            os.kill(control, signal.SIGKILL)
        output = process.communicate(timeout=60)
        assert "Traceback" not in "".join(output), output
        assert process.returncode in (0, 1, 3), (process.returncode, output)
        until(lambda: not alive(control), 10.0)
        return f"{' '.join(command[:2])} killed after {moment:.2f} s"

    def new_counts(self) -> str:
        module = self.chance.choice(("jede", "cam"))
        self.counts[module] = self.chance.choice([n for n in (1, 2, 3) if n != self.counts[module]])
        return f"{module}={self.counts[module]}"

    def control(self, not_this: int = 0) -> int:
        """Pid of the control that holds the platform's lock, 0 where there is none."""
        try:
            pid = int((self.one.paths.state / "lock").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return 0
        return pid if b"idi.control" in command and pid != not_this and alive(pid) else 0

    def go_on(self) -> str:
        """The next command."""
        if self.chance.random() < 0.25:
            self.one.down()
            self.up = False
            self.check_down()
            return "then down"
        self.one.up()
        self.up = True
        # Whether the killed change had been noted or not, it is asked for again.
        self.one.run("scale", *(f"{name}={count}" for name, count in self.counts.items() if name != "sfl"))
        self.check_up()
        return "then up"

    def check_up(self) -> None:
        one = self.one
        status = one.status()
        found = {
            module["name"]: [each["state"] for each in module["instances"]] for module in status["modules"]
        }
        assert found == {name: ["ready"] * count for name, count in self.counts.items()}
        pids = one.pids()
        assert self.leaders() == set(pids.values()) - {pids["control"]}, pids
        assert status["rejections"] == []
        one.wait_ready()
        token = one.token()
        for name in self.counts:
            assert one.ask(f"/v1/{name}/IDI_MODULE", token).text == name
        one.audit()
        assert self.check_journal()

    def check_down(self) -> None:
        assert self.one.processes() == []
        assert self.one.run("status", check=False).returncode == 3
        self.one.audit()
        self.check_journal()

    def leaders(self) -> set[int]:
        """Processes of the platform that lead a session: each has a seat, or it is left over."""
        return {pid for pid in self.one.processes() if os.getsid(pid) == pid}

    def check_journal(self) -> list[object]:
        """Every change that was begun has ended, one way or the other; none has two ends. Those that were begun: none
        where control was killed before it had taken its first order."""
        begun, ended = [], []
        for entry in self.one.journal():
            if entry["phase"] == "begin":
                begun.append(entry["change"])
            elif entry["phase"] == "finish":
                ended.append(entry["change"])
        assert sorted(begun) == sorted(ended)
        return begun


@pytest.mark.requirement("S5", "T3", "D1")
@pytest.mark.timeout(scale(240, 1800))
def test_whenever_control_is_killed_the_next_command_converges(seeded: random.Random) -> None:
    with platform(DECLARATION, {"small.py": SMALL}) as one:
        operator = Operator(one, seeded)
        actions = ["up", *seeded.sample(("scale", "restart", "down"), 3)]
        for number in range(RUNS):
            action = actions[number] if number < len(actions) else seeded.choice(tuple(USUAL_S))
            if action != "up" and not operator.up:
                one.up()
                operator.up = True
            if action == "up" and operator.up:
                one.down()
                operator.up = False
            did = operator.ask_and_kill(action)
            then = operator.go_on()
            figure(f"run {number + 1}: {did}, {then}", entries=one.audit()["size"])
