"""Values that were set beside the file: read by the code that reads the file, and refused in its words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.declaration.load import Loaded, Rejected, load
from idi.declaration.overlay import Config, Value, plain_of, read_word, value_of
from idi.declaration.references import written
from idi.declaration.types import ModuleName

pytestmark = pytest.mark.requirement("S1")

JEDE, CAM = ModuleName("jede"), ModuleName("cam")
TEXT = """\
platform: shop
defaults:
  config: {LOG_LEVEL: info, WORKERS: 4}
modules:
  jede:
    run: serve
    calls: [cam]
    publishes: [jede.decided]
    config: {FAST: true, LINK: "${peer.cam.url}/x", RATE: 0.5, CODE: "0123"}
    secrets: {PASSWORD: jede/password}
  cam: {run: serve}
environments:
  qa:
    target: local
    defaults: {config: {LOG_LEVEL: warning}}
    modules: {cam: {config: {WORKERS: 8}}}
"""


def shop(config: Config, environment: str = "dev") -> Loaded | Rejected:
    return load(TEXT, file="platform.yaml", environment=environment, config=config)


def set_(environment: str = "dev", **values: str | int | float | bool) -> Loaded:
    found = shop({JEDE: {name: value_of(value) for name, value in values.items()}}, environment)
    assert isinstance(found, Loaded), found
    return found


def refused(name: str, value: str | int | float | bool) -> str:
    found = shop({JEDE: {name: value_of(value)}})
    assert isinstance(found, Rejected)
    [mistake] = found.mistakes
    return str(mistake)


def values(found: Loaded, module: ModuleName = JEDE) -> dict[str, tuple[str, str]]:
    """Each value as text, and where it comes from."""
    return {
        name: (written(value), str(found.platform.origins[f"modules.{module}.config.{name}"]))
        for name, value in found.platform.modules[module].config.items()
    }


def test_every_value_says_where_it_comes_from() -> None:
    found = set_(LOG_LEVEL="debug", NEW=1)
    assert values(found) == {
        "LOG_LEVEL": ("debug", "idi config set"),
        "WORKERS": ("4", "platform.yaml:3:38"),
        "FAST": ("true", "platform.yaml:9:20"),
        "LINK": ("${peer.cam.url}/x", "platform.yaml:9:32"),
        "RATE": ("0.5", "platform.yaml:9:59"),
        "CODE": ("0123", "platform.yaml:9:70"),
        "NEW": ("1", "idi config set"),
    }
    assert values(found, CAM)["LOG_LEVEL"] == ("info", "platform.yaml:3:23")


def test_an_environments_own_values_and_what_holds_for_all_modules() -> None:
    found = set_("qa", WORKERS=16)
    assert values(found)["LOG_LEVEL"] == ("warning", "platform.yaml:15:36")
    assert values(found)["WORKERS"] == ("16", "idi config set")
    assert values(found, CAM)["WORKERS"] == ("8", "platform.yaml:16:39")
    assert found.platform.origins["modules.cam.config.WORKERS"].kind == "environment"
    [laid] = found.laid
    assert str(laid.before) == "platform.yaml:3:38"
    assert values(set_("dev", WORKERS=16), CAM)["WORKERS"] == ("4", "platform.yaml:3:38")


def test_what_says_no_more_than_the_file_is_not_laid() -> None:
    assert set_(LOG_LEVEL="info", WORKERS=4, FAST=True, CODE="0123").laid == ()
    gone = shop({ModuleName("gone"): {"A": Value("b")}})
    assert isinstance(gone, Loaded)
    assert gone.laid == ()
    # 4 and "4" are the same to the program and not the same in the file.
    assert isinstance(shop({JEDE: {"WORKERS": Value("4")}}), Rejected)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WORKERS", "many", "WORKERS is 'many', text, and in line 3 of the file it is a whole number; write a whole"),
        ("WORKERS", 0.5, "WORKERS is '0.5', a number, and in line 3 of the file it is a whole number;"),
        ("FAST", 1, "in line 9 of the file it is true or false; write true or false."),
        ("LOG_LEVEL", 8080, 'in line 3 of the file it is text; quote it to pass it as text: "8080".'),
        ("CODE", 123, 'quote it to pass it as text: "123".'),
        ("PORT", 1, "PORT is set by the platform itself for every module; choose another name."),
        ("EVENTS_URL", "x", "EVENTS_URL is set by the platform itself for every module; choose another name."),
        ("IDI_X", "x", "IDI_X is set by the platform itself for every module; choose another name."),
        ("CAM_URL", "x", "CAM_URL is set by the platform itself, since jede calls cam; choose another name"),
        ("PASSWORD", "x", "PASSWORD stands under both config and secrets; keep one."),
        ("1A", "x", "variable is '1A'; write an environment variable's name"),
        ("X", "${peer.vtl.url}", "'${peer.vtl.url}': the module does not call 'vtl'; add it under 'calls'."),
        ("X", "${prot}", "'${prot}' refers to nothing that is given;"),
        ("X", "${port", "'${' is never closed; write '}' after the name, or $${ for the text '${' itself."),
        ("X", "a\0b", "holds U+0000, which no program can be given; remove it."),
    ],
)  # fmt: skip
def test_what_the_file_may_not_say_cannot_be_set(name: str, value: str | int | float, said: str) -> None:
    found = refused(name, value)
    assert found.startswith(f"idi config set jede {name}: ")
    assert said in found


def test_the_words_are_those_of_the_file() -> None:
    in_file = load(
        TEXT.replace("FAST: true", 'X: "${peer.vtl.url}"'), file="platform.yaml", environment="dev"
    )
    assert isinstance(in_file, Rejected)
    assert in_file.mistakes[0].message in refused("X", "${peer.vtl.url}")


def test_a_whole_number_is_a_number_and_a_reference_may_be_anything() -> None:
    assert values(set_(RATE=1))["RATE"][0] == "1"
    assert values(set_(WORKERS="${port}"))["WORKERS"][0] == "${port}"
    assert values(set_(LINK=8080))["LINK"][0] == "8080"


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("debug", "debug"),
        ("8080", 8080),
        ('"8080"', "8080"),
        ("'8080'", "8080"),
        ("0.5", 0.5),
        ("true", True),
        ('"true"', "true"),
        ("", ""),
        ('"a \\"b\\" \\\\"', 'a "b" \\'),
        ("'it''s'", "it's"),
        ("a: b # c", "a: b # c"),
        ("{x}", "{x}"),
        ('"', '"'),
    ],
)
def test_a_typed_word_is_what_yaml_would_make_of_it(word: str, value: str | float | bool) -> None:
    found = read_word(word)
    assert isinstance(found, Value)
    assert (plain_of(found), type(plain_of(found))) == (value, type(value))


@pytest.mark.parametrize("word", ["yes", "1.10", "0x10", "2024-01-01", "null", "~"])
def test_what_is_not_the_same_to_every_reader_is_asked_to_be_quoted(word: str) -> None:
    found = read_word(word)
    assert isinstance(found, str)
    assert f'quote it to pass it as text: "{word}"' in found
    assert read_word(f'"{word}"') == Value(word)


PLAIN = st.one_of(
    st.text(), st.booleans(), st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False)
)


@given(PLAIN)
def test_a_value_comes_back_from_json_as_it_went(value: str | float | bool) -> None:
    back = plain_of(value_of(value))
    assert (back, type(back)) == (value, type(value))
