"""CloudEvents 1.0 over HTTP: what comes in becomes events in binary form, what goes out is a POST in binary form.

In come the three modes of the HTTP binding: structured (`application/cloudevents+json`), batch
(`application/cloudevents-batch+json`) and binary (attributes as `ce-` headers, the body is the data). On the bus an
event is headers and a payload as in the NATS binding, which are the same names, so nothing is translated on the way
out. What cannot go out again as it came in is refused here: JSON that says two things (a name given twice) or that is
none (NaN), a content type that is no header, attributes that together are longer than servers take. Pure.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

ONE, MANY = "application/cloudevents+json", "application/cloudevents-batch+json"
NESTED = "application/cloudevents"
"""What begins so is an event itself; data of that type would be taken for one by whoever receives it."""

PREFIX = "ce-"
NEEDED = ("id", "source", "specversion", "type")
NAME = re.compile(r"[a-z0-9]{1,64}")
MOST_EVENTS = 100
MOST_ATTRIBUTES = 64
LONGEST_VALUE = 4096
"""As it stands in a header, percent-encoded."""

MOST_HEADER_BYTES = 12 << 10
"""All attributes together. Servers take from 16 KiB of headers on, and proxies add some of their own."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_MEDIA_TYPE = re.compile(r"[!-~]+(?: +[!-~]+)*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SPARED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
"""What the HTTP binding leaves as it is in a header; a space, quotes, percent and all else is percent-encoded."""
_PLAIN = re.compile(r"[!#$&-~]*")
"""Nothing but that."""


class Malformed(Exception):
    """Not an event. `status` is 400 where the body cannot be read at all, 415 for a form that is none, 422 where
    an event breaks a rule."""

    def __init__(self, reason: str, status: int = 422) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """`attributes` are all but the data, as text; `content_type` is `datacontenttype`, empty where there is none."""

    attributes: Mapping[str, str]
    data: bytes = b""

    @property
    def type(self) -> str:
        return self.attributes["type"]

    @property
    def key(self) -> str:
        """Source and id: what makes two events the same one. No attribute has a NUL, so nothing else has this key."""
        return f"{self.attributes['source']}\0{self.attributes['id']}"


def read(headers: Mapping[str, str], body: bytes) -> list[CloudEvent]:
    """The events of one request; raises `Malformed`. `headers` have lower-case names."""
    form, _, parameters = headers.get("content-type", "").partition(";")
    form = form.strip().lower()
    if form.startswith(NESTED):
        charset = re.search(r"charset\s*=\s*\"?([^\s;\"]+)", parameters, re.IGNORECASE)
        if charset and charset[1].lower() not in ("utf-8", "utf8"):
            raise Malformed(f"charset {charset[1][:40]} is none that is read: send UTF-8.", 415)
    if form == ONE:
        return [structured(parsed(body), "the event")]
    if form == MANY:
        documents = parsed(body)
        if not isinstance(documents, list):
            raise Malformed("A batch is a JSON list of events.")
        if len(documents) > MOST_EVENTS:
            raise Malformed(f"A batch has at most {MOST_EVENTS} events, this one has {len(documents)}.")
        return [structured(one, f"event {number}") for number, one in enumerate(documents, 1)]
    if form.startswith(NESTED):
        raise Malformed(
            f"{form} is none of {ONE}, {MANY}; a plain body has its attributes in ce- headers.", 415
        )
    if not any(name.startswith(PREFIX) for name in headers):
        raise Malformed(
            f"This is no CloudEvent: send {ONE}, {MANY}, or the attributes in headers ce-id, ce-source, ce-type and "
            "ce-specversion.",
            415,
        )
    return [binary(headers, body)]


def parsed(body: bytes) -> object:
    try:
        return strict_json(body)
    except ValueError as error:
        raise Malformed(f"The body is not JSON: {error}.", 400) from None


def strict_json(body: bytes) -> object:
    """JSON as its RFC has it, in UTF-8; Python's reader alone takes more. Raises `ValueError`."""
    try:
        return json.loads(
            body.decode(), object_pairs_hook=_once, parse_constant=_no_number, parse_float=_number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Readers differ in which of two they take, and that would be another event for each of them."""
    found: dict[str, object] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:64]!r} is given twice")
        found[name] = value
    return found


def _no_number(name: str) -> object:
    raise ValueError(f"{name} is no number")


def _number(text: str) -> float:
    """One that is too large would go out as Infinity, which is no JSON."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def structured(document: object, which: str) -> CloudEvent:
    if not isinstance(document, dict):
        raise Malformed(f"{which} is not a JSON object.")
    coded = document.get("data_base64")
    if "data" in document and coded is not None:
        raise Malformed(f"{which} has both data and data_base64; an event has one of them.")
    attributes = {}
    for name, value in document.items():
        if name in ("data", "data_base64") or value is None:
            continue
        attributes[name] = text_of(name, value, which)
    if coded is not None:
        try:
            data = base64.b64decode(coded if isinstance(coded, str) else "?", validate=True)
        except (binascii.Error, ValueError):
            raise Malformed(f"data_base64 of {which} is not base64.") from None
    elif "data" in document:
        try:
            data, attributes = json_data(document["data"], attributes)
        except (ValueError, RecursionError):
            raise Malformed(f"data of {which} cannot be written as what it says it is.") from None
    else:
        data = b""
    return checked(CloudEvent(attributes, data), which)


def json_data(value: object, attributes: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """Data that stands in the JSON: itself where it is JSON, else the text that it is."""
    form = attributes.get("datacontenttype", "")
    if isinstance(value, str) and form and not is_json(form):
        return value.encode(), attributes
    try:  # as short as it came
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, which JSON can say and UTF-8 cannot
        text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return text, {"datacontenttype": "application/json"} | attributes


def is_json(form: str) -> bool:
    kind = form.partition(";")[0].strip().lower()
    return kind.endswith(("/json", "+json"))


def text_of(name: str, value: object, which: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and -(1 << 31) <= value < 1 << 31:
        return str(value)
    raise Malformed(
        f"{name[:64]!r} of {which} is neither text, true or false, nor a whole number of 32 bits."
    )


def binary(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    attributes = {
        name.removeprefix(PREFIX): decoded(name, value)
        for name, value in headers.items()
        if name.startswith(PREFIX)
    }
    if form := headers.get("content-type", ""):
        attributes["datacontenttype"] = form
    return checked(CloudEvent(attributes, body), "the event")


def decoded(name: str, value: str) -> str:
    """A header's value as the HTTP binding has it: out of its quotes first, then percent-decoded once."""
    if _PLAIN.fullmatch(value):
        return value
    if quoted := _QUOTED.fullmatch(value):
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise Malformed(f"{name[:64]} has percent-encoded bytes that are not UTF-8.") from None


def checked(event: CloudEvent, which: str) -> CloudEvent:
    attributes = event.attributes
    for name in NEEDED:
        if not attributes.get(name):
            raise Malformed(f"{which} has no {name}.")
    if attributes["specversion"] != "1.0":
        raise Malformed(f"{which} has specversion {attributes['specversion'][:20]!r}; 1.0 is read.")
    if len(attributes) > MOST_ATTRIBUTES:
        raise Malformed(f"{which} has {len(attributes)} attributes, {MOST_ATTRIBUTES} are the most.")
    for name, value in attributes.items():
        if not NAME.fullmatch(name):
            raise Malformed(
                f"{name[:64]!r} of {which} is no attribute's name: lower-case letters and digits, at most 64."
            )
        if name == "data":
            raise Malformed(f"{which} has an attribute called data, which the event's data is.")
        if len(value) > LONGEST_VALUE:
            raise too_long(name, which)
        if _CONTROL.search(value):
            raise Malformed(f"{name} of {which} has a control character.")
    form = attributes.get("datacontenttype")
    if form is not None and (not _MEDIA_TYPE.fullmatch(form) or form.lower().startswith(NESTED)):
        raise Malformed(f"datacontenttype of {which} is no media type that data can have.")
    length = 0
    for name, value in _headers(event):
        if len(value) > LONGEST_VALUE:
            raise too_long(name.removeprefix(PREFIX), which)
        length += len(name) + len(value) + 4
    if length > MOST_HEADER_BYTES:
        raise Malformed(f"The attributes of {which} are longer than {MOST_HEADER_BYTES} bytes together.")
    if "time" in attributes and not _TIME.fullmatch(attributes["time"]):
        raise Malformed(f"time of {which} is not a time such as 2026-01-31T12:00:00Z.")
    return event


def too_long(name: str, which: str) -> Malformed:
    return Malformed(f"{name} of {which} is longer than {LONGEST_VALUE} characters, percent-encoded.")


def message_id(module: str, event: CloudEvent) -> str:
    """What the broker knows it by: two events of a module with the same source and id are one. Bounded, whatever those
    are."""
    return hashlib.sha256(f"{module}\0{event.key}".encode()).hexdigest()


def to_headers(event: CloudEvent) -> dict[str, str]:
    """As it stands on the bus, and in a POST."""
    return dict(_headers(event))


def _headers(event: CloudEvent) -> Iterator[tuple[str, str]]:
    for name, value in event.attributes.items():
        if name == "datacontenttype":
            yield "content-type", value
        else:
            yield PREFIX + name, value if _PLAIN.fullmatch(value) else quote(value, safe=_SPARED)


def from_headers(headers: Mapping[str, str], payload: bytes) -> CloudEvent:
    """What stands on the bus; raises `Malformed` for what a module put there by itself that is no event. The NATS
    binding has the structured mode too, so a module may have put that there."""
    lower = {name.lower(): value for name, value in headers.items()}
    if lower.get("content-type", "").partition(";")[0].strip().lower() == ONE:
        return structured(parsed(payload), "the event")
    return binary(lower, payload)


def to_document(event: CloudEvent) -> dict[str, object]:
    """The JSON form, for people and for dead letters."""
    document: dict[str, object] = dict(event.attributes)
    form = event.attributes.get("datacontenttype", "")
    if not event.data:
        return document
    try:
        if is_json(form):
            return document | {"data": strict_json(event.data)}
        if form.lower().startswith("text/"):
            return document | {"data": event.data.decode()}
    except ValueError:
        pass
    return document | {"data_base64": base64.b64encode(event.data).decode()}
