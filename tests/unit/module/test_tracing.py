"""Where OpenTelemetry is installed, what a module does is spans of it; where it is not, the context goes on all the
same (`test_requests`, `test_events`).
"""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.requirement("G2", "B1")

CODE = """
    import asyncio
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    from idi.module import Limits, Module, testing

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    cam, jede = (Module(name=name, limits=Limits(linger_s=0.0)) for name in ("cam", "jede"))

    @cam.get("/echo/{what}")
    async def echo(request):
        raise ValueError(request.headers["traceparent"])

    @jede.get("/")
    async def call(_):
        await jede.events.publish("jede.asked")
        return (await jede.peers.cam.get("/echo/x")).json()

    async def main():
        headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "x-request-id": "r-1"}
        async with testing.client(jede, peers={"cam": cam}) as client:
            await client.get("/", headers=headers)

    asyncio.run(main())
    found = [one for one in kept.get_finished_spans() if format(one.context.trace_id, "032x").startswith("4bf9")]
    spans = {one.name: one for one in found}
    parents = {one.context.span_id: one.name for one in spans.values()}
    for name, one in sorted(spans.items()):
        parent = parents.get(one.parent.span_id, format(one.parent.span_id, "016x"))
        print(name, one.kind.name, parent, one.status.status_code.name)
"""


def test_each_step_is_a_span_under_the_one_before() -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CODE)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "GET / SERVER 00f067aa0ba902b7 ERROR",
        "GET /echo/{what} SERVER GET cam ERROR",
        "GET cam CLIENT GET / ERROR",
        "POST /events SERVER publish jede.asked UNSET",
        "publish jede.asked PRODUCER GET / UNSET",
    ], done.stdout
