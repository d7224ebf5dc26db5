"""SDK for modules in Python: `from idi.module import Module`. It makes shorter what the platform asks of a module in
any language, and imports nothing of the platform.
"""

from idi.module.app import Module
from idi.module.events import Event, GiveUp, NotPublished, Retry
from idi.module.http import Answer, Request
from idi.module.life import Limits
from idi.module.peers import Call, Peer, PeerError, Reply
from idi.module.problem import Misconfigured, NotDeclared, Problem
from idi.module.secret import Secret, SecretFile

__all__ = [
    "Answer",
    "Call",
    "Event",
    "GiveUp",
    "Limits",
    "Misconfigured",
    "Module",
    "NotDeclared",
    "NotPublished",
    "Peer",
    "PeerError",
    "Problem",
    "Reply",
    "Request",
    "Retry",
    "Secret",
    "SecretFile",
]
