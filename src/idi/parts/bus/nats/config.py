"""The configuration of the broker: one account for each module, and what it may reach in IDI's own.

Streams live in one account (`IDI`). A module's account is empty but for imports: the subjects that it publishes, and
for each of its subscriptions the one subject by which to ask for the next events and the one by which to answer. A
subject that is not imported exists for nobody else: a publish to it has no responder, and replies (`_INBOX.>`) stay
inside the account that asked. So modules cannot read each other's replies, which one account with permissions would
let them.

Passwords stand in it as they are: whoever can read the file (0600, in a folder 0700) can read the key that they are
derived from too. The server reads a changed file on SIGHUP and ends the connections of the accounts that changed, no
others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from idi.parts.bus.nats.names import answer_subject, next_subject

IDI = "IDI"
SYSTEM, WATCHER = "SYS", "idi.watch"
"""The server's own account, and who asks there how it is: what follows the dot of any other login is a number."""

REPLIES = "_INBOX.>"
"""Where clients hear their answers; other modules' are in other accounts."""

MOST_PAYLOAD = 4 << 20
"""With its headers: an event has at most a quarter of it at the relay, a dead letter brings its tries along."""
MOST_BYTES, MOST_MEMORY_BYTES = 1 << 40, 4 << 30
"""NATS counts what topics may come to against this, not what they hold. Each topic has its own bound, and the disk
has the last word."""
MOST_CONNECTIONS = 1024


Users = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Login:
    """Who a module is to the broker, and what it may do. `users` are name and password of each login that it has: two
    while one takes the other's place, since a name has one password."""

    module: str
    users: Users
    publishes: tuple[str, ...] = ()
    consumes: tuple[str, ...] = ()


def render(idi: Users, watch_password: str, logins: Mapping[str, Login]) -> str:
    """The file, in the order of the names: the same platform gives the same bytes. NATS takes JSON. Where it listens
    and where it stores is on its command line, which a target fills in."""
    exports: list[dict[str, object]] = []
    accounts: dict[str, object] = {}
    for name in sorted(logins):
        login = logins[name]
        imports: list[dict[str, object]] = []
        subjects = reached(login)
        for subject, answers in subjects:
            exports.append({"service": subject, "accounts": [account_of(name)], **answers})
            imports.append({"service": {"account": IDI, "subject": subject}})
        permissions = {
            "publish": {"allow": [subject for subject, _ in subjects]},
            "subscribe": {"allow": [REPLIES]},
        }
        accounts[account_of(name)] = {
            "users": users(login.users, permissions),
            "imports": imports,
        }
    accounts[SYSTEM] = {"users": [{"user": WATCHER, "password": watch_password}]}
    accounts[IDI] = {
        "jetstream": "enabled",
        "users": users(idi),
        "exports": merged(exports),
    }
    return json.dumps(
        {
            "server_name": "idi",
            "max_payload": MOST_PAYLOAD,
            "max_connections": MOST_CONNECTIONS,
            "logtime_utc": True,
            "jetstream": {
                "max_file_store": MOST_BYTES,
                "max_memory_store": MOST_MEMORY_BYTES,
                "sync_interval": "always",
            },
            "accounts": accounts,
            "system_account": SYSTEM,
        },
        indent=1,
    )


def marked(text: str) -> tuple[str, str]:
    """The same file with a tag that says which it is, and the tag: a server that was asked to read its file again says
    by it whether it has read this one. It is told to nobody but whoever asks in the server's own account."""
    tag = f"read:{sha256(text.encode()).hexdigest()[:16]}"
    return json.dumps({**json.loads(text), "server_tags": [tag]}, indent=1), tag


def users(each: Users, permissions: Mapping[str, object] | None = None) -> list[dict[str, object]]:
    """Everyone may do all that the account can, where nothing is said."""
    may = {} if permissions is None else {"permissions": permissions}
    return [{"user": name, "password": password, **may} for name, password in each]


def account_of(module: str) -> str:
    return f"module-{module}"


def reached(login: Login) -> list[tuple[str, dict[str, object]]]:
    """The subjects of IDI's account that this module may use, with how each answers."""
    found: list[tuple[str, dict[str, object]]] = [(topic, {}) for topic in sorted(login.publishes)]
    for topic in sorted(login.consumes):
        found.append((next_subject(topic, login.module), {"response_type": "stream"}))
        found.append((answer_subject(topic, login.module), {}))
    return found


def merged(exports: list[dict[str, object]]) -> list[dict[str, object]]:
    """One export a subject: a topic that two modules publish is exported to both."""
    by_subject: dict[str, dict[str, object]] = {}
    for export in exports:
        known = by_subject.setdefault(str(export["service"]), {**export, "accounts": []})
        known["accounts"] = sorted({*_names(known), *_names(export)})
    return [by_subject[subject] for subject in sorted(by_subject)]


def _names(export: Mapping[str, object]) -> list[str]:
    names = export["accounts"]
    assert isinstance(names, list)
    return names
