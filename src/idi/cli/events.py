"""`idi events`: publish, watch, and look after what could not be delivered; through control, which asks the bus."""

from __future__ import annotations

import json
import os
import sys
from urllib.parse import quote

from idi.api.client import Answered
from idi.cli.commands import Command
from idi.cli.failure import DONE, FAILED, Failure, usage
from idi.cli.invocation import Invocation
from idi.cli.parser import add_globals, count
from idi.cli.terminal.screen import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Iterator
    from typing import Any

    from idi.api.client import Stream
    from idi.api.types import DeadView, EventView, PublishedView, ReplayView

MOST_DATA_BYTES = 1024 * 1024
SHOWN = 400
FOLLOW_S = 3600.0 * 24 * 365


def arguments(parser: ArgumentParser) -> None:
    what = parser.add_subparsers(dest="what", metavar="WHAT", required=True, title="What")
    publish = what.add_parser("publish", help="publish one event as the operator")
    publish.add_argument("type", metavar="TYPE", help="the event's type, such as jede.decided")
    publish.add_argument(
        "data", nargs="?", metavar="DATA", help="its data: JSON, else text; without it standard input is read"
    )
    publish.add_argument("--id", metavar="ID", help="its id; the same one is taken once (default: a new one)")
    publish.add_argument("--subject", metavar="TEXT", help="what it is about")
    publish.add_argument("--source", default="/idi/operator", metavar="URI", help="default: /idi/operator")
    tail = what.add_parser("tail", help="events as they come, until Ctrl-C")
    tail.add_argument("types", nargs="*", metavar="TYPE", help="only of these types (default: all)")
    tail.add_argument(
        "--since", type=count, metavar="N", help="begin with the event of this number (default: what comes)"
    )
    tail.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="only those with this attribute (subject=order-7); may be given again",
    )
    dead = what.add_parser("dead", help="events that no attempt could deliver, and why")
    dead.add_argument("--module", default="", metavar="M", help="only those that were for this module")
    replay = what.add_parser("replay", help="hand dead letters to their modules once more")
    replay.add_argument("ids", nargs="*", type=count, metavar="ID", help="number of a dead letter")
    replay.add_argument("--all", action="store_true", help="every one")
    replay.add_argument("--module", default="", metavar="M", help="every one that was for this module")
    for each in (publish, tail, dead, replay):
        add_globals(each)


def run(invocation: Invocation) -> int:
    return {"publish": publish, "tail": tail, "dead": dead, "replay": replay}[invocation.options.what](
        invocation
    )


def publish(invocation: Invocation) -> int:
    options = invocation.options
    text = read_data() if options.data is None else options.data
    event: dict[str, object] = {
        "specversion": "1.0",
        "id": options.id or os.urandom(16).hex(),
        "source": options.source,
        "type": options.type,
    }
    if options.subject:
        event["subject"] = options.subject
    try:
        event |= {"datacontenttype": "application/json", "data": json.loads(text)}
    except ValueError:
        event |= {"datacontenttype": "text/plain", "data": text}
    answer: PublishedView = invocation.client().ask("POST", "/v1/events", {"event": event})
    if invocation.json:
        invocation.screen.document({**answer, "id": event["id"]})
        return DONE
    known = "; one of this id was there already" if answer["duplicate"] else ""
    invocation.screen.out(f"{answer['topic']} {answer['sequence']} is kept, id {event['id']}{known}.")
    return DONE


def read_data() -> str:
    data = sys.stdin.buffer.read(MOST_DATA_BYTES + 1)
    if len(data) > MOST_DATA_BYTES:
        raise usage("The data is larger than 1 MiB, which no event is.")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise usage("The data is not UTF-8.", "Publish other bytes from a module, by EVENTS_URL.") from None


def tail(invocation: Invocation) -> int:
    options = invocation.options
    pairs = [("topic", name) for name in options.types] + [("attribute", pair) for pair in options.where]
    for pair in options.where:
        if "=" not in pair:
            raise usage(f"'{pair}' is not NAME=VALUE.", "Write for example: --where subject=order-7")
    if options.since:
        pairs.append(("since", str(options.since)))
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)
    with invocation.client(FOLLOW_S).stream("GET", f"/v1/events?{query}") as stream:
        for view in lines_of(stream):
            if invocation.json:
                invocation.screen.document(view)
            else:
                invocation.screen.out(event_line(view))
                sys.stdout.flush()
    return DONE


def lines_of(stream: Stream) -> Iterator[Any]:
    """What comes; a problem on the last line is raised."""
    for line in stream:
        if "title" in line and "status" in line:
            raise Answered(line)
        yield line


def event_line(view: EventView) -> Line:
    event = view["event"]
    head: Line = [
        (view["at"][11:23] + " ", "dim"),
        (f"{view['topic']} ", "cyan"),
        (f"{view['sequence']} ", "dim"),
    ]
    if event is None:
        return [*head, (f"is no CloudEvent: {view.get('malformed', '')}", "yellow")]
    about = f"{event['subject']} " if event.get("subject") else ""
    return [*head, (f"{event.get('source')} {event.get('id')} ", ""), (about, "green"), (data_of(event), "")]


def data_of(event: dict[str, object]) -> str:
    """The data on one line, cut where it is long."""
    if "data_base64" in event:
        return f"({len(str(event['data_base64'])) * 3 // 4} bytes)"
    if "data" not in event:
        return ""
    data = event["data"]
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def dead(invocation: Invocation) -> int:
    screen, module = invocation.screen, invocation.options.module
    found = 0
    with invocation.client(60.0).stream("GET", "/v1/dead-letters") as stream:
        for view in lines_of(stream):
            if module and view["module"] != module:
                continue
            found += 1
            if invocation.json:
                screen.document(view)
            else:
                for line in dead_lines(view):
                    screen.tell(line, indent=4)
    if not found and not invocation.json:
        screen.out("No event is dead.")
    elif not invocation.json:
        screen.tell(f"{found} dead. {invocation.command_line('events replay ID')} hands one out again.")
    return DONE


def dead_lines(view: DeadView) -> list[Line]:
    event = view["event"] or {}
    attempts = "1 attempt" if view["attempts"] == 1 else f"{view['attempts']} attempts"
    first: Line = [
        (f"{view['id']:>4} ", "bold"),
        (f"{view['topic']} for {view['module']} ", "cyan"),
        (f"after {attempts}, {view['at'][:19].replace('T', ' ')} UTC", "dim"),
    ]
    why: Line = [("     ", ""), (view["reason"], "yellow")]
    what: Line = [("     ", ""), (f"{event.get('source')} {event.get('id')} {data_of(event)}", "")]
    return [first, why, what]


def replay(invocation: Invocation) -> int:
    options = invocation.options
    if bool(options.ids) + options.all + bool(options.module) != 1:
        raise usage(
            "Name dead letters by their numbers, or say --all or --module M.", "idi events dead lists them."
        )
    request: dict[str, object] = {}
    if options.ids:
        request["ids"] = options.ids
    if options.module:
        request["module"] = options.module
    answer: ReplayView = invocation.client(300.0).ask("POST", "/v1/dead-letters/replay", request)
    if invocation.json:
        invocation.screen.document(answer)
    else:
        count_ = len(answer["replayed"])
        events = "event is" if count_ == 1 else "events are"
        invocation.screen.out(f"{count_} {events} handed out again.")
    if answer["left"]:
        left = ", ".join(map(str, answer["left"]))
        invocation.screen.warn(f"Left as they are, since their modules take such events no more: {left}.")
    if answer["gone"]:
        gone = ", ".join(map(str, answer["gone"]))
        raise Failure(
            f"There is no dead letter {gone} (any more).", way_out="idi events dead lists them.", code=FAILED
        )
    return DONE


COMMANDS = {
    "events": Command(
        run,
        arguments,
        examples=(
            "idi events publish jede.decided '{\"case\": 7}' --subject case-7",
            "idi events tail jede.decided --where subject=case-7",
            "idi events dead",
            "idi events replay 3",
        ),
        about="Publish an event as the operator, watch events go by, see which could not be delivered and why,\n"
        "and hand those out again: to the module that did not take them, and to no other.",
    )
}
