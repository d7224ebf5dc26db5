"""Who acts, for the journal. Imported before everything else of control: it brings nothing heavy along."""

from __future__ import annotations

import pwd

from idi.parts.store.interface import Actor

CONTROL = Actor("idi", "control")
"""Who acts when nobody asked: an interrupted change is taken up again."""


def user(uid: int, pid: int) -> Actor:
    """A person, as the kernel knows them: by the name of their user where it has one."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = str(uid)
    return Actor("peer", name, uid=uid, pid=pid)
