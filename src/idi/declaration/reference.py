"""The reference page of the declaration, in Markdown, made from the shapes the loader reads with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from idi.declaration.records import Field, Named, Record
from idi.declaration.references import FORMS
from idi.declaration.shapes import Either, Many, Shape
from idi.declaration.spec_platform import ROOT
from idi.declaration.types import RESERVED_NAMES

_TITLES = {
    "declaration": "The file",
    "module": "modules.NAME",
    "client": "gateway.clients.NAME",
    "issuer": "gateway.issuer",
    "external": "externals.NAME",
    "event": "events.NAME",
    "deliver": "events.NAME.deliver",
    "environment": "environments.NAME",
    "target": "environments.NAME.target",
    "kubernetes": "environments.NAME.target.kubernetes",
    "rate-limit": "gateway.rate_limit",
    "address-limit": "gateway.address_limit",
    "anonymous-limit": "gateway.address_limit.anonymous",
    "cors": "gateway.cors",
    "tls": "gateway.tls",
    "edge-limits": "gateway.limits",
    "route": "modules.NAME.routes",
    "secret": "modules.NAME.secrets.VARIABLE",
}
_IN_MODULE = ("readiness", "storage", "scale", "resources", "slo", "release")

_INTRODUCTION = """\
# The declaration

`platform.yaml` declares a platform: its modules and all that stands around them. The smallest is three lines:

```yaml
platform: hello
modules:
  hello: {run: python hello.py}
```

Every other line has a default. `idi validate` reports every mistake at once, each with its line and column;
`idi plan` says where each value comes from; `idi schema` prints a JSON Schema with which editors complete this file.

## Values

| kind | written | not |
|---|---|---|
| duration | `300ms`, `2s`, `5m`, `24h`, `7d` | `300`, `2 sec`, `1h30m` (write `90m`) |
| size | `512B`, `60KiB`, `256MiB`, `10GiB`, `1TiB` | `256Mi`, `10GB` |
| percentage | `70%`, `0.5%` | `0.7`, `70` |
| CPU | `250m` (thousandths of a core), `2`, `0.5` | `250` for a quarter of a core |
| text | as it is; in quotes where YAML would read something else | `no`, `on`, `1.10`, `12:30` without quotes |
| config value | text, `8080`, `true`; the program gets it exactly as written | `yes`, `007`, `1.10` without quotes |

Lists stand where order matters or a set is meant, maps where names matter. The order of `calls`, `publishes`, `scopes`
and of a route's `methods` means nothing. Anchors and aliases are read (within bounds), merge keys (`<<`) and tags are
refused.

## References

Values under `config`, and `run`, may refer to what the platform gives. `$${` writes `${` itself.

| reference | becomes |
|---|---|
"""

_VARIABLES = f"""
Every module also gets these as variables, so `config` and `secrets` may not set them: `PORT`, `GATEWAY_URL`, \
`EVENTS_URL`, `BUS_URL`, `<PEER>_URL` for each module under `calls`, and all that begin with `IDI_` or `OTEL_`.

Names of the platform's own parts, which no module or external may take: {", ".join(sorted(RESERVED_NAMES))}.

## Environments

`dev` exists in every file; without an `environments` section `staging` and `production` do too. An environment only
overrides: maps merge by key, lists and single values replace. In `readiness`, one of `http`, `tcp`, `command` replaces
the others; in `release`, a new `strategy` replaces `steps` and `bake` too. The file without its environments is whole
by itself. `defaults` stand under each module and merge with it the same way; a module with `storage` does not take
`instances`, `scale` and `release` from them, since it has one writer.
"""


def reference() -> str:
    """The whole page."""
    lines = [_INTRODUCTION.rstrip("\n")]
    lines += [f"| `{form}` | {about} |" for form, about in FORMS.items()]
    lines.append(_VARIABLES)
    for record in _records(ROOT, set()):
        if record.name == "defaults":
            lines += ["## defaults", "", f"{record.about} Its keys are those of a module:", ""]
            lines += [", ".join(f"`{key}`" for key in record.fields) + ".", ""]
            continue
        if record.name == "environment":
            lines += ["## environments.NAME", "", record.about, ""]
            lines += [*_table([record.fields["target"]], record), ""]
            others = ", ".join(f"`{key}`" for key in record.fields if key != "target")
            lines += [f"And, to override: {others}.", ""]
            continue
        title = _TITLES.get(record.name, record.name)
        title = f"modules.NAME.{record.name}" if record.name in _IN_MODULE else title
        lines += [f"## {title}", "", record.about, "", *_table(list(record.fields.values()), record), ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(fields: list[Field], record: Record) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for field in fields:
        default = field.default or _plain(record.default_of(field))
        default = "needed" if field.needed else default or "none"
        example = (
            "" if field.example is None or _same(field, record) else f" Example: `{_plain(field.example)}`."
        )
        yield f"| `{field.key}` | {_cell(_value(field.shape))} | {_cell(default)} | {_cell(field.about + example)} |"


def _same(field: Field, record: Record) -> bool:
    return bool(record.default_of(field) == field.example)


def _value(shape: Shape) -> str:
    if isinstance(shape, Record):
        return "map, see below"
    if isinstance(shape, Named):
        return f"map from {shape.kind}" + (", see below" if isinstance(shape.values, Record) else "")
    if isinstance(shape, Many):
        return "list, see below" if isinstance(shape.item, Record) else f"list: {shape.item.words}"
    if isinstance(shape, Either):
        return f"{shape.words}, see below"
    return shape.words


def _records(shape: Shape, seen: set[str]) -> Iterator[Record]:
    """Every record, in the order a reader meets them."""
    if isinstance(shape, Record):
        if shape.name in seen:
            return
        seen.add(shape.name)
        yield shape
        for field in shape.fields.values():
            if shape.name != "defaults":
                yield from _records(field.shape, seen)
    elif isinstance(shape, Named):
        yield from _records(shape.values, seen)
    elif isinstance(shape, Many):
        yield from _records(shape.item, seen)
    elif isinstance(shape, Either):
        yield from _records(shape.table, seen)


def _plain(value: Any) -> str:
    """A plain value as YAML in one line."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_plain(part) for part in value) + "]"
    return value if isinstance(value, str) else json.dumps(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
