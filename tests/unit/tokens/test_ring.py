"""Keys over time: whatever happens to rotation, a token that is out can be checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.parts.errors import Refused
from idi.parts.tokens.embedded.ring import Key, Ring

pytestmark = pytest.mark.requirement("S3")

LEAD = 600.0
OVERLAP = 3660.0
LIFE = 3600.0


def key(number: int, signs_from: float) -> Key:
    return Key(f"k{number}", signs_from, {"d": "secret"})


def kids(keys: tuple[Key, ...]) -> list[str]:
    return [each.kid for each in keys]


def test_a_rotation_in_its_moments() -> None:
    ring = Ring((key(1, 0),)).rotated(key(2, 1000 + LEAD), 1000, OVERLAP)
    for now, signing, published in [
        (1000, "k1", ["k1", "k2"]),
        (1599, "k1", ["k1", "k2"]),
        (1600, "k2", ["k1", "k2"]),
        (1600 + OVERLAP - 1, "k2", ["k1", "k2"]),
        (1600 + OVERLAP, "k2", ["k2"]),
    ]:
        assert ring.signing(now).kid == signing, now
        assert kids(ring.published(now, OVERLAP)) == published, now


def test_a_second_rotation_waits_for_the_first() -> None:
    ring = Ring((key(1, 0),)).rotated(key(2, 1600), 1000, OVERLAP)
    with pytest.raises(Refused, match="under way"):
        ring.rotated(key(3, 1700), 1100, OVERLAP)
    assert len(ring.rotated(key(3, 2200), 1600, OVERLAP).keys) == 3


def test_a_clock_before_every_key_still_has_one_that_signs() -> None:
    ring = Ring((key(1, 1000), key(2, 2000)))
    assert ring.signing(0).kid == "k1"
    assert kids(ring.published(0, OVERLAP)) == ["k1", "k2"]


def test_a_private_key_is_in_no_repr() -> None:
    assert "secret" not in repr(Ring((key(1, 0),)))


@given(
    st.lists(st.floats(1, 20000), min_size=1, max_size=12), st.lists(st.floats(0, 1), min_size=1, max_size=12)
)
def test_every_token_can_be_checked_until_it_ends(pauses: list[float], shares: list[float]) -> None:
    """Rotate (or try to) at arbitrary moments, with tokens made in between: each one's key is published from
    `LEAD` before it was made until it ends, through every later state of the ring."""
    now = 0.0
    ring = Ring((key(0, 0),))
    made: list[tuple[str, float]] = []
    seen: list[tuple[float, set[str]]] = []
    for number, pause in enumerate(pauses, start=1):
        for share in shares:
            moment = now + pause * share
            made.append((ring.signing(moment).kid, moment))
        for moment in (now, now + pause / 2, now + pause):
            seen.append((moment, {each.kid for each in ring.published(moment, OVERLAP)}))
        now += pause
        try:
            ring = ring.rotated(key(number, now + LEAD), now, OVERLAP)
        except Refused:
            ring = Ring(ring.published(now, OVERLAP))  # what tidying does
    for kid, moment in made:
        for at, published in seen:
            if moment - LEAD < at < moment + LIFE:
                assert kid in published
