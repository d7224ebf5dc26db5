"""CloudEvents in and out: nothing changes on the way, and what is none is refused with its reason."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idi.parts.bus.cloudevents import (
    LONGEST_VALUE,
    MANY,
    MOST_ATTRIBUTES,
    MOST_HEADER_BYTES,
    ONE,
    CloudEvent,
    Malformed,
    from_headers,
    message_id,
    read,
    structured,
    to_document,
    to_headers,
)

pytestmark = pytest.mark.requirement("B1")

NEEDED = {"specversion": "1.0", "id": "1", "source": "/a", "type": "a.b"}
BINARY = {f"ce-{name}": value for name, value in NEEDED.items()}

# --- round trips ---------------------------------------------------------------------------------------

texts = st.text(
    st.characters(
        exclude_categories=["Cs"], exclude_characters=[chr(c) for c in (*range(32), *range(127, 160))]
    ),
    max_size=40,
)
names = st.from_regex(r"[a-z0-9]{1,20}", fullmatch=True).filter(
    lambda name: name not in {*NEEDED, "data", "time", "datacontenttype"}
)
extensions = st.dictionaries(names, texts, max_size=8)
forms = st.sampled_from(
    [
        "",
        "application/json",
        "application/vnd.shop+json; charset=utf-8",
        "text/plain",
        "image/png",
        "Application/JSON",
    ]
)
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    """Any event that a binary request may be."""
    attributes = {
        **draw(extensions),
        **NEEDED,
        "id": draw(texts.filter(bool)),
        "source": draw(texts.filter(bool)),
    }
    if form := draw(forms):
        attributes["datacontenttype"] = form
    if draw(st.booleans()):
        attributes["time"] = "2026-01-31T12:00:00.5+01:00"
    return CloudEvent(attributes, draw(st.binary(max_size=200)))


def events_of(headers: Mapping[str, str], body: bytes) -> list[CloudEvent] | Malformed:
    try:
        return read(headers, body)
    except Malformed as error:
        return error


def over_the_wire(headers: Mapping[str, str]) -> dict[str, str]:
    """As an HTTP server has them: printable ASCII, and no space at the ends."""
    for name, value in headers.items():
        assert (name + value).isascii()
        assert (name + value).isprintable()
        assert value == value.strip()
    return {name.title(): value for name, value in headers.items()}


@given(events())
def test_headers_and_back(event: CloudEvent) -> None:
    assert from_headers(over_the_wire(to_headers(event)), event.data) == event


@given(events())
def test_a_document_and_back(event: CloudEvent) -> None:
    document = to_document(event)
    assert "data" not in document or "data_base64" not in document
    back = structured(json.loads(json.dumps(document)), "it")
    assert back.attributes == event.attributes
    if "data" in document and not isinstance(document["data"], str):
        assert json.loads(back.data) == json.loads(event.data)
    elif "data" not in document:
        assert back.data == event.data
    assert to_document(back) == document


@given(extensions, documents)
def test_json_data_is_the_same_json_everywhere(more: dict[str, str], data: Any) -> None:
    sent = {**more, **NEEDED, "data": data}
    [event] = read({"content-type": ONE}, json.dumps(sent).encode())
    assert json.loads(event.data) == data
    assert event.attributes == {**more, **NEEDED, "datacontenttype": "application/json"}
    handed = from_headers(over_the_wire(to_headers(event)), event.data)
    assert handed == event
    assert to_document(handed) == {**sent, "datacontenttype": "application/json"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_data_is_the_same_text_everywhere(data: str) -> None:
    sent = {**NEEDED, "datacontenttype": "text/plain", "data": data}
    [event] = read({"content-type": ONE}, json.dumps(sent).encode())
    assert event.data == data.encode()
    assert to_document(event).get("data", "") == data


@given(st.binary(), forms)
def test_base64_data_is_the_same_bytes_everywhere(data: bytes, form: str) -> None:
    sent: dict[str, Any] = {**NEEDED, "data_base64": base64.b64encode(data).decode()}
    if form:
        sent["datacontenttype"] = form
    [event] = read({"content-type": ONE}, json.dumps(sent).encode())
    assert event.data == data
    assert from_headers(to_headers(event), event.data) == event


@given(st.lists(events(), max_size=10))
def test_a_batch_is_its_events(batch: list[CloudEvent]) -> None:
    body = json.dumps([to_document(event) for event in batch]).encode()
    assert [event.attributes for event in read({"content-type": MANY}, body)] == [e.attributes for e in batch]


@given(st.binary(max_size=300), st.sampled_from([ONE, MANY, "text/plain"]))
def test_whatever_comes_is_an_event_or_malformed(body: bytes, form: str) -> None:
    for headers in ({"content-type": form}, {"content-type": form, **BINARY}):
        found = events_of(headers, body)
        if isinstance(found, Malformed):
            assert found.status in (400, 415, 422)
            assert found.reason.encode()
        else:
            for event in found:
                over_the_wire(to_headers(event))


@given(st.dictionaries(st.text(max_size=8), documents, max_size=6), st.booleans())
def test_whatever_document_comes_is_an_event_or_malformed(document: dict[str, Any], whole: bool) -> None:
    try:
        event = structured({**document, **NEEDED} if whole else document, "it")
    except Malformed:
        return
    over_the_wire(to_headers(event))


# --- the HTTP binding's percent-encoding -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("plain-._~!#$&'()*+,/:;<=>?@[\\]^`{|}", "plain-._~!#$&'()*+,/:;<=>?@[\\]^`{|}"),
        ("Euro € 😀", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ('a "quoted" one', "a%20%22quoted%22%20one"),
        ("100%", "100%25"),
        ("%41", "%2541"),
        ("é", "%C3%A9"),
        (" ", "%20"),
    ],
)
def test_a_value_in_a_header(value: str, header: str) -> None:
    assert to_headers(CloudEvent({**NEEDED, "x": value}))["ce-x"] == header
    assert from_headers({**BINARY, "ce-x": header}, b"").attributes["x"] == value


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("%c3%a9", "é"),
        ("%41%42", "AB"),
        ("é", "é"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ('"in quotes"', "in quotes"),
        ('"in \\"quotes\\" and \\\\"', 'in "quotes" and \\'),
        ('"%22"', '"'),
        ('half "quoted"', 'half "quoted"'),
        ('"', '"'),
        ("%2541", "%41"),
    ],
)
def test_other_ways_to_write_a_value_are_read(header: str, value: str) -> None:
    assert from_headers({**BINARY, "ce-x": header}, b"").attributes["x"] == value


@pytest.mark.parametrize("header", ["%C0%A0", "%FF", "%ED%A0%80", "%E2%82", "a%80b"])
def test_bytes_that_are_not_utf_8_are_refused(header: str) -> None:
    with pytest.raises(Malformed, match="not UTF-8"):
        from_headers({**BINARY, "ce-x": header}, b"")


def test_names_of_headers_have_no_case() -> None:
    headers = {
        "CE-Id": "1",
        "Ce-SOURCE": "/a",
        "ce-Type": "a.b",
        "cE-specversion": "1.0",
        "Content-TYPE": "text/plain",
    }
    assert from_headers(headers, b"x") == CloudEvent({**NEEDED, "datacontenttype": "text/plain"}, b"x")


# --- what is refused -------------------------------------------------------------------------------------

SHORT = json.dumps(NEEDED).encode()


def with_(**changes: Any) -> bytes:
    found = {**NEEDED, **changes}
    return json.dumps({name: value for name, value in found.items() if value != "gone"}).encode()


DEEP = (
    b'{"specversion":"1.0","id":"1","source":"/a","type":"a.b","data":'
    + b"[" * 200_000
    + b"]" * 200_000
    + b"}"
)

MALFORMED: list[tuple[str, bytes, int, str]] = [
    (ONE, b"", 400, "The body is not JSON: Expecting value"),
    (ONE, b"{", 400, "The body is not JSON: Expecting property name"),
    (ONE, b"\xff", 400, "The body is not JSON: 'utf-8' codec can't decode byte 0xff"),
    (ONE, SHORT.decode().encode("utf-16"), 400, "The body is not JSON: 'utf-8' codec"),
    (ONE, SHORT + b"x", 400, "The body is not JSON: Extra data"),
    (ONE, DEEP, 400, "The body is not JSON: it is nested too deeply."),
    (ONE, SHORT[:-1] + b',"id":"2"}', 400, "The body is not JSON: 'id' is given twice."),
    (ONE, with_(data=1)[:-2] + b'{"a":1,"a":1}}', 400, "The body is not JSON: 'a' is given twice."),
    (ONE, with_(data=float("nan")), 400, "The body is not JSON: NaN is no number."),
    (ONE, with_(data=float("-inf")), 400, "The body is not JSON: -Infinity is no number."),
    (ONE, with_(data=7)[:-2] + b"1e999}", 400, "The body is not JSON: 1e999 is too large a number."),
    (ONE, with_(data=7)[:-2] + b"9" * 5000 + b"}", 400, "The body is not JSON: Exceeds the limit"),
    (ONE, b"[]", 422, "the event is not a JSON object."),
    (ONE, b"null", 422, "the event is not a JSON object."),
    (ONE, b"{}", 422, "the event has no id."),
    (ONE, with_(source="gone"), 422, "the event has no source."),
    (ONE, with_(type=""), 422, "the event has no type."),
    (ONE, with_(id=None), 422, "the event has no id."),
    (ONE, with_(specversion="gone"), 422, "the event has no specversion."),
    (ONE, with_(specversion="0.3"), 422, "the event has specversion '0.3'; 1.0 is read."),
    (
        ONE,
        with_(x=1.5),
        422,
        "'x' of the event is neither text, true or false, nor a whole number of 32 bits.",
    ),
    (ONE, with_(x=1 << 31), 422, "'x' of the event is neither"),
    (ONE, with_(x=[]), 422, "'x' of the event is neither"),
    (ONE, with_(x={}), 422, "'x' of the event is neither"),
    (ONE, with_(**{"\ud800": 1.5}), 422, "'\\ud800' of the event is neither"),
    (ONE, with_(X="1"), 422, "'X' of the event is no attribute's name"),
    (ONE, with_(**{"a-b": "1"}), 422, "'a-b' of the event is no attribute's name"),
    (ONE, with_(**{"": "1"}), 422, "'' of the event is no attribute's name"),
    (ONE, with_(**{"a" * 65: "1"}), 422, f"'{'a' * 64}' of the event is no attribute's name"),
    (ONE, with_(é="1"), 422, "'é' of the event is no attribute's name"),
    (ONE, with_(x="a\nb"), 422, "x of the event has a control character."),
    (ONE, with_(x="a\x85b"), 422, "x of the event has a control character."),
    (ONE, with_(x="\ud800"), 422, "x of the event has a control character."),
    (
        ONE,
        with_(x="a" * (LONGEST_VALUE + 1)),
        422,
        "x of the event is longer than 4096 characters, percent-encoded.",
    ),
    (ONE, with_(x="é" * 700), 422, "x of the event is longer than 4096 characters, percent-encoded."),
    (
        ONE,
        with_(x="a" * 4096, y="a" * 4096, z="a" * 4096),
        422,
        "The attributes of the event are longer than 12288",
    ),
    (ONE, with_(**{f"x{n}": "" for n in range(61)}), 422, "the event has 65 attributes, 64 are the most."),
    (ONE, with_(time="noon"), 422, "time of the event is not a time such as 2026-01-31T12:00:00Z."),
    (ONE, with_(time="2026-01-31"), 422, "time of the event is not a time"),
    (ONE, with_(data=1, data_base64="AA=="), 422, "the event has both data and data_base64"),
    (ONE, with_(data_base64="?"), 422, "data_base64 of the event is not base64."),
    (ONE, with_(data_base64="A"), 422, "data_base64 of the event is not base64."),
    (ONE, with_(data_base64=1234), 422, "data_base64 of the event is not base64."),
    (ONE, with_(data_base64="é"), 422, "data_base64 of the event is not base64."),
    (ONE, with_(data="\ud800", datacontenttype="text/plain"), 422, "data of the event cannot be written"),
    (ONE, with_(datacontenttype="text/плоский"), 422, "datacontenttype of the event is no media type"),
    (ONE, with_(datacontenttype=" text/plain"), 422, "datacontenttype of the event is no media type"),
    (ONE, with_(datacontenttype=""), 422, "datacontenttype of the event is no media type"),
    (ONE, with_(datacontenttype=ONE), 422, "datacontenttype of the event is no media type"),
    (ONE + "; charset=utf-16", SHORT, 415, "charset utf-16 is none that is read: send UTF-8."),
    (MANY, b"{}", 422, "A batch is a JSON list of events."),
    (MANY, b"[" + SHORT + b",{}]", 422, "event 2 has no id."),
    (MANY, b"[" + b",".join([SHORT] * 101) + b"]", 422, "A batch has at most 100 events, this one has 101."),
    (MANY + "; charset=latin1", b"[]", 415, "charset latin1"),
    ("application/cloudevents", SHORT, 415, "application/cloudevents is none of"),
    ("application/cloudevents+avro", SHORT, 415, "application/cloudevents+avro is none of"),
    ("application/json", SHORT, 415, "This is no CloudEvent: send"),
    ("", SHORT, 415, "This is no CloudEvent: send"),
]


@pytest.mark.parametrize(("form", "body", "status", "reason"), MALFORMED)
def test_what_is_no_event_is_refused_with_its_reason(
    form: str, body: bytes, status: int, reason: str
) -> None:
    with pytest.raises(Malformed) as caught:
        read({"content-type": form}, body)
    assert caught.value.reason[: len(reason)] == reason
    assert caught.value.status == status
    assert len(caught.value.reason.encode()) < 400


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ce-id": ""}, "the event has no id."),
        ({"ce-Ü": "1"}, "'Ü' of the event is no attribute's name"),
        ({"ce-a_b": "1"}, "'a_b' of the event is no attribute's name"),
        ({"ce-": "1"}, "'' of the event is no attribute's name"),
        ({"ce-x": "%0A"}, "x of the event has a control character."),
        ({"ce-x": "\udcff"}, "x of the event has a control character."),
        ({"ce-data": "1"}, "the event has an attribute called data, which the event's data is."),
        ({"ce-x": "%C3%A9" * 700}, "x of the event is longer than 4096"),
        ({"content-type": "a\udcff"}, "datacontenttype of the event has a control character."),
    ],
)
def test_headers_that_are_no_event_are_refused_with_their_reason(
    changes: dict[str, str], reason: str
) -> None:
    with pytest.raises(Malformed) as caught:
        read({"content-type": "text/plain", **BINARY, **changes}, b"")
    assert caught.value.reason.startswith(reason)
    assert caught.value.status == 422


# --- what is taken ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "attributes", "data"),
    [
        ({}, {}, b""),
        ({"x": True, "y": False, "z": -5, "n": None}, {"x": "true", "y": "false", "z": "-5"}, b""),
        ({"data": None}, {"datacontenttype": "application/json"}, b"null"),
        ({"data": "a"}, {"datacontenttype": "application/json"}, b'"a"'),
        ({"data": "a", "datacontenttype": "text/plain"}, {"datacontenttype": "text/plain"}, b"a"),
        ({"data": "a", "datacontenttype": "a/b+json"}, {"datacontenttype": "a/b+json"}, b'"a"'),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, {"datacontenttype": "text/plain"}, b'{"a":1}'),
        ({"data_base64": "AP8="}, {}, b"\x00\xff"),
        ({"data_base64": None}, {}, b""),
        ({"data": 1, "data_base64": None}, {"datacontenttype": "application/json"}, b"1"),
        ({"data": 10**40}, {"datacontenttype": "application/json"}, str(10**40).encode()),
        ({"time": "2026-01-31t12:00:00.123456789z"}, {"time": "2026-01-31t12:00:00.123456789z"}, b""),
        ({"x": ""}, {"x": ""}, b""),
    ],
)
def test_what_a_document_becomes(changes: dict[str, Any], attributes: dict[str, str], data: bytes) -> None:
    [event] = read(
        {"content-type": ONE.upper() + ' ; Charset="UTF-8"'}, json.dumps({**NEEDED, **changes}).encode()
    )
    assert event == CloudEvent({**NEEDED, **attributes}, data)


@pytest.mark.parametrize("data", [float("nan"), [float("inf")]])
def test_a_document_that_somebody_else_read_is_held_to_the_same(data: Any) -> None:
    with pytest.raises(Malformed, match="data of it cannot be written"):
        structured({**NEEDED, "data": data}, "it")


def test_as_many_and_as_long_attributes_as_may_be() -> None:
    many = {f"x{number}": "é" for number in range(MOST_ATTRIBUTES - len(NEEDED))}
    assert len(structured({**NEEDED, **many}, "it").attributes) == MOST_ATTRIBUTES
    event = structured({**NEEDED, "x": "a" * LONGEST_VALUE}, "it")
    assert sum(len(name) + len(value) + 4 for name, value in to_headers(event).items()) < MOST_HEADER_BYTES


def test_a_document_as_deep_as_the_reader_goes_is_no_crash() -> None:
    """Whatever can be read can be written again, or is refused: also near the bound."""
    for depth in range(100, 2 * sys.getrecursionlimit(), 50):
        body = SHORT[:-1] + b',"data":' + b"[" * depth + b"]" * depth + b"}"
        found = events_of({"content-type": ONE}, body)
        if isinstance(found, Malformed):
            assert found.status in (400, 422)
        else:
            [event] = found
            assert event.data == b"[" * depth + b"]" * depth
            to_document(event)


@pytest.mark.parametrize(
    ("form", "data"),
    [
        ("application/json", b"{"),
        ("application/json", b"NaN"),
        ("application/json", b'{"a":1,"a":2}'),
        ("application/json", b"[" * 100_000),
        ("application/json", "{}".encode("utf-16")),
        ("text/plain", b"\xff"),
        ("image/png", b"abc"),
        ("", b"abc"),
    ],
)
def test_data_that_is_not_what_it_says_is_shown_as_bytes(form: str, data: bytes) -> None:
    attributes = {**NEEDED, **({"datacontenttype": form} if form else {})}
    assert to_document(CloudEvent(attributes, data)) == {
        **attributes,
        "data_base64": base64.b64encode(data).decode(),
    }


def test_a_structured_event_on_the_bus() -> None:
    headers = {"Content-Type": ONE + "; charset=UTF-8", "other": "x"}
    assert from_headers(headers, with_(data=[1])).data == b"[1]"
    with pytest.raises(Malformed, match="not JSON"):
        from_headers(headers, b"{")


# --- the same event --------------------------------------------------------------------------------------


def test_the_same_source_and_id_are_the_same_event_of_a_module() -> None:
    def id_of(module: str, source: str, id: str, **more: str) -> str:
        return message_id(module, CloudEvent({**NEEDED, "source": source, "id": id, **more}))

    assert id_of("jede", "/a", "1") == id_of("jede", "/a", "1", subject="x")
    others = [
        ("jede", "/a", "2"),
        ("jede", "/b", "1"),
        ("cam", "/a", "1"),
        ("jede", "/a 1", "2"),
        ("jede", "/a", "1 2"),
    ]
    assert len({id_of(*each) for each in [*others, ("jede", "/a", "1")]}) == 6
    assert len(id_of("jede", "/" * 4000, "😀" * 300)) == 64
