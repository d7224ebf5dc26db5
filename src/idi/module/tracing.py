"""What of a request goes on with everything that is done for it: W3C trace context, baggage, the request's id.

It lies in a context variable, so nobody hands it through. Where OpenTelemetry's API is installed, each step is a span
of it as well, and what goes on is that span's context; which spans are kept, and where they are sent, is the matter of
its SDK, set up by the module or by `opentelemetry-instrument`. Without it the context goes on as it came.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

REQUEST_ID = "x-request-id"
TRACE = ("traceparent", "tracestate")
CARRIED = (*TRACE, "baggage", REQUEST_ID)
Kind = Literal["SERVER", "CLIENT", "PRODUCER"]

_carried: ContextVar[Mapping[str, str]] = ContextVar("idi_carried", default={})  # noqa: B039 - never written to


@functools.cache
def opentelemetry() -> Any:
    """Its `trace`, `propagate` and `context`; None where it is not installed. Asked for once before the module is
    ready, so that no request waits for the import."""
    try:
        return [
            importlib.import_module(f"opentelemetry.{name}") for name in ("trace", "propagate", "context")
        ]
    except ImportError:
        return None


def carried() -> Mapping[str, str]:
    """Headers that go on with whatever is sent now."""
    return _carried.get()


def trace_id() -> str:
    """Of the request or event that is handled now; empty where it has none."""
    parts = carried().get("traceparent", "").split("-")
    return parts[1] if len(parts) >= 4 else ""


@contextmanager
def step(name: str, kind: Kind, came: Mapping[str, str] | None = None) -> Iterator[Mapping[str, str]]:
    """One step; gives what goes on from it. `came`: the headers with which it begins, where it begins here."""
    on = carried() if came is None else {one: came[one] for one in CARRIED if came.get(one)}
    api = opentelemetry()
    if api is None:
        with _set(on):
            yield on
        return
    trace, propagate, context = api
    # Not the tracer's `context` argument: by that one baggage would not go on.
    token = None if came is None else context.attach(propagate.extract(on, context.Context()))
    try:
        with trace.get_tracer("idi.module").start_as_current_span(name, kind=trace.SpanKind[kind]):
            injected: dict[str, str] = {}
            propagate.inject(injected)
            if request_id := on.get(REQUEST_ID):
                injected[REQUEST_ID] = request_id
            with _set(injected):
                yield injected
    finally:
        if token is not None:
            context.detach(token)


def failed(reason: str) -> None:
    """The step under way did not do what it should."""
    if api := opentelemetry():
        trace = api[0]
        trace.get_current_span().set_status(trace.StatusCode.ERROR, reason)


@contextmanager
def _set(on: Mapping[str, str]) -> Iterator[None]:
    token = _carried.set(on)
    try:
        yield
    finally:
        _carried.reset(token)
