"""Sleep and a set clock are noticed once each; a slow adjustment is not."""

from __future__ import annotations

import pytest

from idi.control.clocks import notice_jumps


class End(Exception):
    pass


@pytest.mark.requirement("S4")
@pytest.mark.parametrize(
    ("looks", "noticed"),
    [
        ([(0, 0), (0, 0), (0, 0)], 0),
        ([(0, 0), (3600, 3600), (3600, 3600)], 1),
        ([(0, 0), (0, -90), (0, -90)], 1),
        ([(0, 0), (0, 1), (0, 2)], 0),
    ],
)
async def test_jumps(looks: list[tuple[float, float]], noticed: int) -> None:
    steps = iter(looks)
    suspended, set_by = next(steps)
    count = 0

    async def sleep(_: float) -> None:
        nonlocal suspended, set_by
        try:
            suspended, set_by = next(steps)
        except StopIteration:
            raise End from None

    def jumped() -> None:
        nonlocal count
        count += 1

    with pytest.raises(End):
        await notice_jumps(
            lambda: suspended, jumped, wall=lambda: 1000.0 + set_by, monotonic=lambda: 5.0, sleep=sleep
        )
    assert count == noticed
