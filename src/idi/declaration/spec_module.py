"""The sections under a module's name: keys, meanings, bounds, and the typed module they become."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from idi.declaration.frozen import Frozen
from idi.declaration.names import (
    CALLED,
    EVENT,
    IMAGE,
    MODULE,
    PATH,
    SECRET,
    VARIABLE,
    WATCHED,
)
from idi.declaration.nodes import Table
from idi.declaration.reader import Reader
from idi.declaration.records import Field, Given, Named, Record
from idi.declaration.references import Phrase, Setting
from idi.declaration.shapes import Choice, Either, Many, Shape, Whole
from idi.declaration.spec_reach import PORTS, READINESS, ROUTE, route
from idi.declaration.types import (
    DEFAULT_PORT,
    Module,
    ModuleName,
    Port,
    Readiness,
    Release,
    Resources,
    Scale,
    Slo,
    Storage,
)
from idi.declaration.units import Cpu, Duration, Percent, Size

CANARY_STEPS = (0.1, 0.5)
CANARY_BAKE_S = 120.0

SCALE = Record(
    "scale",
    "Autoscaling, where the target has it (Kubernetes); `instances` is the least.",
    Scale,
    Field("max", Whole(1, 100, 10), "Instances at most.", needed=True),
    Field(
        "cpu",
        Percent("1%", "100%", "70%"),
        "Share of its CPU request at which one more is started.",
        needed=True,
    ),
    Field("down_after", Duration("0s", "1h", "5m"), "Instances end once fewer have been enough for so long."),
)

STORAGE = Record(
    "storage",
    "A folder of the module's own that outlives its instances; its path is in IDI_DATA_DIR.",
    Storage,
    Field("size", Size("1MiB", "1024TiB", "10GiB"), "How much it holds.", needed=True),
    Field(
        "data_version",
        Whole(1, 1_000_000),
        "Raised when a new version writes data that the old one cannot read.",
    ),
)

RESOURCES = Record(
    "resources",
    "What an instance is given on a target that shares machines out.",
    Resources,
    Field("cpu", Cpu(), "CPU.", quiet=True, default="no share reserved"),
    Field("memory", Size("1MiB", "64TiB", "256MiB"), "Memory.", quiet=True, default="no limit"),
    Field(
        "gpu",
        Whole(0, 64, 1),
        "Whole GPUs, on a cluster; a laptop has what it has.",
        quiet=True,
        default="none",
    ),
)

SLO = Record(
    "slo",
    "What is promised; a release that breaks it is rolled back.",
    Slo,
    Field("errors", Percent("0%", "100%", "1%"), "Share of requests that may fail."),
    Field(
        "p99",
        Duration("1ms", "1h", "300ms"),
        "Time within which 99% are answered.",
        quiet=True,
        default="not judged",
    ),
)


def _release(given: Given, node: Table, reader: Reader) -> Release:
    strategy = given.get("strategy", "rolling" if "steps" not in given else "canary")
    steps = given.get("steps")
    if steps is not None and strategy != "canary":
        entry = node.entry("steps")
        reader.report(
            entry.key if entry else node,
            f"steps are for strategy: canary, not {strategy}; remove one of the two.",
        )
        steps = ()
    elif steps is not None and any(later <= earlier for earlier, later in pairwise(steps)):
        reader.report(node.get("steps") or node, "steps must grow, such as [10%, 50%].")
    canary = strategy == "canary"
    if steps is None:
        steps = CANARY_STEPS if canary else ()
    return Release(strategy, steps, given.get("bake_s", CANARY_BAKE_S if canary else 0.0))


RELEASE = Record(
    "release",
    "How a new version takes over.",
    Release,
    Field(
        "strategy",
        Choice("rolling", "canary", "blue-green", "recreate"),
        "rolling: instance by instance; canary: a growing share of traffic; blue-green: all at once, both running; "
        "recreate: stop the old one first (never two writers).",
        default="rolling, with storage recreate",
        example="canary",
    ),
    Field(
        "steps",
        Many(Percent("0.1%", "99%", "10%"), least=1, most=20, ordered=True),
        "Shares of a canary before it has all.",
        quiet=True,
        default="[10%, 50%] for a canary",
        example=["10%", "50%"],
    ),
    Field(
        "bake",
        Duration("0s", "7d", "2m"),
        "How long each step is watched.",
        default="2m for a canary, else 0s",
    ),
    build=_release,
)


class _Secret(Either):
    def write(self, value: Any) -> Any:
        return value["path"] if value.get("as") != "file" else {"path": value["path"], "as": "file"}

    def read(self, node: Any, reader: Reader, key: str) -> Any:
        value = super().read(node, reader, key)
        return {"path": value} if isinstance(value, str) else value


_Secret.short = "secret path"  # type: ignore[attr-defined]

SECRETS = Named(
    VARIABLE,
    _Secret(
        SECRET,
        Record(
            "secret",
            "A secret, and how the module gets it.",
            None,
            Field("path", SECRET, "Path in the secret store.", needed=True),
            Field(
                "as",
                Choice("variable", "file"),
                "The value itself, or the path of a file that holds it.",
                default="variable",
            ),
        ),
    ),
    kind="variable",
    example={"DATABASE_PASSWORD": "jede/database"},
)
CONFIG = Named(VARIABLE, Setting(), kind="variable", example={"LOG_LEVEL": "info"})

_INSTANCES = Field("instances", Whole(0, 100, 2), "How many run.")
_READINESS = Field(
    "readiness", READINESS, "When an instance is ready.", default="http: /ready", example={"http": "/ready"}
)
_GRACE = Field("grace", Duration("0s", "1h", "10s"), "Time between SIGTERM and SIGKILL.")
_CONFIG = Field("config", CONFIG, "Environment variables; values may hold references.")
_POOL = Field(
    "pool", Choice("general", "ml", "storage"), "Kind of machine it runs on, where the target has several."
)
_SCALE = Field("scale", SCALE, "Autoscaling.", default="none", example={"max": 10, "cpu": "70%"})
_RESOURCES = Field("resources", RESOURCES, "CPU and memory.", example={"cpu": "250m", "memory": "256MiB"})
_SLO = Field("slo", SLO, "What is promised.", example={"errors": "1%", "p99": "300ms"})
_RELEASE = Field(
    "release",
    RELEASE,
    "How a new version takes over.",
    default="rolling, with storage recreate",
    example={"strategy": "canary"},
)


def _module(given: Given, node: Table, _reader: Reader) -> Module:
    name = given["name"]
    ports = tuple(Port(port, protocol) for port, protocol in given.get("ports", {}).items()) or (
        Port(DEFAULT_PORT),
    )
    spoken = [port.name for port in ports if port.protocol != "tcp"]
    asked = [port.name for port in ports if port.protocol == "http"]
    given["name"] = ModuleName(name)
    given["ports"] = ports
    readiness = given.get("readiness") or Readiness(port="")
    kind = node.get("readiness")
    explicit = isinstance(kind, Table) and any(kind.entry(way) for way in ("http", "tcp", "command"))
    if not explicit and not asked:
        readiness = replace(readiness, http="", tcp=True)
    if not readiness.port:
        readiness = replace(readiness, port=asked[0] if readiness.http and asked else ports[0].name)
    given["readiness"] = readiness
    if "routes" in given:
        given["routes"] = tuple(
            route(name, (spoken or [ports[0].name])[0], written) for written in given["routes"]
        )
    elif node.entry("routes") is None and spoken:
        given["routes"] = (route(name, spoken[0], {"path": f"/v1/{name}/"}),)
    if "storage" in given and node.entry("release") is None:
        given["release"] = Release("recreate")
    secrets: Mapping[str, dict[str, str]] = given.get("secrets", {})
    given["secrets"] = Frozen({variable: secret["path"] for variable, secret in secrets.items()})
    given["secret_files"] = tuple(sorted(v for v, secret in secrets.items() if secret.get("as") == "file"))
    return Module(**given)


def _module_unbuild(module: Module) -> Given:
    given = {field.attr: getattr(module, field.attr) for field in MODULE_RECORD.fields.values()}
    given["ports"] = {port.name: port.protocol for port in module.ports}
    given["secrets"] = {
        variable: {"path": path, "as": "file" if variable in module.secret_files else "variable"}
        for variable, path in module.secrets.items()
    }
    return given


MODULE_RECORD = Record(
    "module",
    "One module: how it runs, what it calls, how it is reached.",
    Module,
    Field(
        "run",
        Phrase("a command line", "python hello.py"),
        "Command that a laptop runs, from this file's folder.",
        default="none",
    ),
    Field(
        "image",
        IMAGE,
        "What a cluster runs: an image, or a folder with a Dockerfile.",
        quiet=True,
        default="none",
    ),
    _INSTANCES,
    Field(
        "ports",
        PORTS,
        "Ports that it listens on; the first is the default and is in PORT.",
        default="{http: http}",
    ),
    Field(
        "calls",
        Many(CALLED),
        "Modules and externals that it calls; everything else is refused.",
        example=["dere", "cam"],
    ),
    Field(
        "routes",
        Many(ROUTE, ordered=True),
        "Ways from the gateway; [] for none.",
        default="/v1/MODULE/ with scope MODULE.call",
        example=[{"path": "/v1/jede/", "scopes": ["jede.read"], "timeout": "5s"}],
    ),
    _CONFIG,
    Field("secrets", SECRETS, "Variables that hold secrets, by their path in the store."),
    _READINESS,
    _GRACE,
    Field("storage", STORAGE, "A folder that outlives instances.", default="none", example={"size": "10GiB"}),
    _POOL,
    _SCALE,
    _RESOURCES,
    _SLO,
    _RELEASE,
    Field("publishes", Many(EVENT), "Event types that it may publish."),
    Field(
        "handles",
        Named(EVENT, PATH, kind="event type", example={"cam.changed": "/events/cam-changed"}),
        "Event types that are posted to it, and the path for each.",
    ),
    Field(
        "consumes",
        Many(EVENT),
        "Event types that it takes from the bus itself, by BUS_URL and a durable consumer of its own name.",
        example=["cam.changed"],
    ),
    Field(
        "watch",
        Many(WATCHED),
        "What `idi up --watch` restarts it for when it is saved, relative to this file; a folder stands for all in it.",
        default='["."], without what .gitignore names and what tools leave',
        example=["jede", "shared/*.py"],
    ),
    build=_module,
    unbuild=_module_unbuild,
    named=True,
    words="a map with 'run' or 'image'",
)


def _nothing(given: Given, _node: Table, _reader: Reader) -> Any:
    """Defaults are merged under each module before it is read; by themselves they are only checked."""
    return given


DEFAULTS = Record(
    "defaults",
    "What holds for every module that does not say otherwise.",
    Module,
    _READINESS,
    _GRACE,
    _INSTANCES,
    _CONFIG,
    _RESOURCES,
    _SLO,
    _RELEASE,
    _SCALE,
    _POOL,
    build=_nothing,
)

MODULES: Shape = Named(
    MODULE, MODULE_RECORD, kind="module name", least=1, example={"hello": {"run": "python hello.py"}}
)
