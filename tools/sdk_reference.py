"""docs/reference/module-sdk.md, made from what `idi.module` exports: signatures and docstrings."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from types import FunctionType

ORDER = (
    "Module", "Limits", "Request", "Answer", "Problem", "Peer", "Call", "Reply", "PeerError", "Event", "Retry",
    "GiveUp", "NotPublished", "Secret", "SecretFile", "NotDeclared", "Misconfigured",
)  # fmt: skip
INSIDE = ("document", "headers", "mistakes", "running", "variable", "url")
HEAD = """\
# The SDK for Python

Made from the code by `make docs`; not edited by hand. How it is used: [the tutorial](../tutorial-python.md). It imports
nothing of the platform; without one, `PORT=8000 python app.py` starts a module, and `idi.module.testing` does so in
a test.

"""


def page() -> str:
    import idi.module
    from idi.module import app, config, events, life, logs, peers, testing, tracing

    assert sorted(ORDER) == sorted(idi.module.__all__)
    told = [HEAD]
    for part, title in (
        (life, "A module's life"), (config, "Configuration and secrets"), (peers, "Peers"), (events, "Events"),
        (tracing, "Traces"), (logs, "Logs"), (testing, "In tests"),
    ):  # fmt: skip
        told.append(f"## {title}\n\n{prose(part.__doc__)}\n")
    told.append("## Names\n")
    for name in ORDER:
        told.append("\n".join(of_class(name, getattr(idi.module, name))))
    told.append("\n".join(of_class("events", events.Publisher, "What `Module.events` is.")))
    told.append("\n".join(of_function("testing.client", testing.client)))
    told.append("\n".join(of_class("testing.Client", testing.Client)))
    assert app.Module is idi.module.Module
    return "\n".join(told).rstrip() + "\n"


def of_class(name: str, kind: type, said: str = "") -> Iterator[str]:
    yield f"### {name}\n"
    if own := said or prose(kind.__doc__ or ""):
        if not own.startswith(f"{kind.__name__}("):
            yield f"{own}\n"
    if dataclasses.is_dataclass(kind):
        fields = [field for field in dataclasses.fields(kind) if not field.name.startswith("_")]
        if fields:
            yield f"Fields: {', '.join(map(field_text, fields))}.\n"
    for member, value in vars(kind).items():
        if (member.startswith("_") and member != "__init__") or member in INSIDE:
            continue
        if isinstance(value, property):
            yield f"- `.{member}`{after(value.fget)}"
        elif member == "__init__" and not dataclasses.is_dataclass(kind):
            yield f"- `{kind.__name__}{signature(value)}`"
        elif member != "__init__" and isinstance(value, (FunctionType, classmethod)):
            function = value.__func__ if isinstance(value, classmethod) else value
            prefix = "await " if inspect.iscoroutinefunction(function) else ""
            yield f"- `{prefix}.{member}{signature(function)}`{after(function)}"
    yield ""


def of_function(name: str, function: object) -> Iterator[str]:
    assert callable(function)
    yield f"### {name}\n"
    yield f"`{name}{signature(function)}`\n\n{prose(function.__doc__ or '')}\n"


def field_text(field: dataclasses.Field[object]) -> str:
    default = "" if field.default is dataclasses.MISSING else f" = {field.default!r}"
    return f"`{field.name}: {field.type}{default}`"


def signature(function: object) -> str:
    assert callable(function)
    found = inspect.signature(function)
    own = [one for name, one in found.parameters.items() if name not in ("self", "cls")]
    text = str(found.replace(parameters=own, return_annotation=inspect.Signature.empty))
    return re.sub(r": '([^']*)'", r": \1", text).replace("typing.Any", "Any")


def after(function: object) -> str:
    said = prose(getattr(function, "__doc__", None) or "")
    return f": {said}" if said else ""


def prose(text: str | None) -> str:
    """A docstring, in one paragraph each; examples stay as they are."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(one if one.startswith("    ") else " ".join(one.split("\n")) for one in paragraphs)
