"""An external issuer that is down: what is known of it goes on being used, what is not is found first."""

from __future__ import annotations

import pytest

from idi.control.trust.issuer import keys_url_of, resolved, with_keys_url
from idi.declaration.load import Loaded, load
from idi.declaration.types import Platform
from idi.parts.errors import PartError

pytestmark = pytest.mark.requirement("S3")

KEYS = "https://login.test/keys"


def shop(issuer: str = "{url: 'https://login.test', audience: shop}") -> Platform:
    text = f"platform: shop\ngateway: {{issuer: {issuer}}}\nmodules: {{cam: serve}}\n"
    loaded = load(text.replace("cam: serve", "cam: {run: serve}"), file="platform.yaml", environment="dev")
    assert isinstance(loaded, Loaded), loaded
    return loaded.platform


async def down(_: Platform) -> Platform:
    raise PartError("https://login.test does not answer: connection refused.")


async def wrong(_: Platform) -> Platform:
    raise PartError("The issuer calls itself 'evil'.", retryable=False)


async def test_an_unchanged_issuer_that_is_down_keeps_its_keys_and_that_is_said() -> None:
    said: list[str] = []
    found = await resolved(down, shop(), with_keys_url(shop(), KEYS), said.append)
    assert keys_url_of(found) == KEYS
    assert said == [
        "https://login.test does not answer: connection refused. "
        f"The gateway goes on with {KEYS}, where its keys were found before."
    ]
    other = shop(
        "{url: 'https://login.test', audience: till}"
    )  # the keys are the issuer's, whoever it is for
    assert keys_url_of(await resolved(down, other, with_keys_url(shop(), KEYS), said.append)) == KEYS


@pytest.mark.parametrize(
    "issuer",
    [
        "{url: 'https://other.test', audience: shop}",
        "{url: 'https://login.test', audience: shop, jwks_url: 'https://login.test/new'}",
    ],
)
async def test_what_was_never_found_has_to_be_found_first(issuer: str) -> None:
    for before in (with_keys_url(shop(), KEYS), shop("embedded"), None):
        with pytest.raises(PartError, match="does not answer"):
            await resolved(down, shop(issuer), before, pytest.fail)


async def test_an_issuer_that_answers_something_wrong_is_refused_though_it_was_known() -> None:
    with pytest.raises(PartError, match="evil"):
        await resolved(wrong, shop(), with_keys_url(shop(), KEYS), pytest.fail)


async def test_an_issuer_that_answers_is_asked() -> None:
    async def up(platform: Platform) -> Platform:
        return with_keys_url(platform, "https://login.test/newer")

    found = await resolved(up, shop(), with_keys_url(shop(), KEYS), pytest.fail)
    assert keys_url_of(found) == "https://login.test/newer"
