"""The whole file: the sections beside `gateway` and the modules, and the root that holds them all."""

from __future__ import annotations

from typing import Any

from idi.declaration.names import (
    ADDRESS,
    ATTRIBUTE,
    CIDR,
    CONTEXT,
    ENVIRONMENT,
    EVENT,
    EXTERNAL,
    IMAGE,
    NAMESPACE,
    OBJECT,
    PLATFORM,
    SECRET_KEY,
    STORAGE_CLASS,
)
from idi.declaration.nodes import Table
from idi.declaration.reader import Reader
from idi.declaration.records import Field, Given, Named, Record
from idi.declaration.shapes import Choice, Either, Flag, Many, Whole
from idi.declaration.spec_gateway import GATEWAY
from idi.declaration.spec_module import DEFAULTS, MODULES
from idi.declaration.spec_reach import PROTOCOL
from idi.declaration.types import (
    Certificates,
    EventType,
    External,
    Images,
    KubernetesTarget,
    LocalTarget,
    Quota,
    Seal,
)
from idi.declaration.units import Cpu, Duration, Size, Span

MOST_ENVIRONMENTS = 32
"""Each is read and checked as a whole of its own."""

CERTIFICATES = Record(
    "certificates",
    "The certificates that workloads prove themselves with.",
    Certificates,
    Field("life", Duration("10s", "90d", "24h"), "Life of a certificate; it is renewed at a third of that."),
)


def _external(given: Given, _node: Table, _reader: Reader) -> External:
    host, _, port = given.pop("address").rpartition(":")
    return External(host=host.strip("[]"), port=int(port), **given)


def _external_unbuild(external: External) -> Given:
    host = f"[{external.host}]" if ":" in external.host else external.host
    return {"address": f"{host}:{external.port}", "protocol": external.protocol}


EXTERNALS = Named(
    EXTERNAL,
    Record(
        "external",
        "Something that is not run here but called like a module, through the caller's sidecar.",
        External,
        Field("address", ADDRESS, "Where it listens.", needed=True),
        Field("protocol", PROTOCOL, "What it speaks.", example="tcp"),
        build=_external,
        unbuild=_external_unbuild,
        named=True,
    ),
    kind="external name",
    example={"warehouse": {"address": "127.0.0.1:5432", "protocol": "tcp"}},
)


class _Plain(Record):
    def write(self, value: Any) -> Any:
        return {
            key: field.shape.write(value[field.attr])
            for key, field in self.fields.items()
            if field.attr in value
        }


def _event(given: Given, _node: Table, _reader: Reader) -> EventType:
    deliver = given.pop("deliver", {})
    backoff = deliver.pop("backoff", None)
    if backoff is not None:
        deliver["backoff_first_s"], deliver["backoff_last_s"] = backoff
    return EventType(**given, **deliver)


def _event_unbuild(event: EventType) -> Given:
    deliver: Given = {
        "attempts": event.attempts,
        "backoff": (event.backoff_first_s, event.backoff_last_s),
    }
    if event.order:
        deliver["order"] = event.order
    kept = ["keep_s", "limit_bytes", "deduplicate_s", "full", "durable", *(["most"] if event.most else [])]
    return {**{name: getattr(event, name) for name in kept}, "deliver": deliver}


EVENTS = Named(
    EVENT,
    Record(
        "event",
        "An event type: how long it is kept, and how hard delivery is tried.",
        EventType,
        Field("keep", Duration("1s", "3650d", "7d"), "How long events are kept."),
        Field("limit", Size("1MiB", "1TiB", "1GiB"), "How much is kept, with the events' attributes."),
        Field("most", Whole(1, 10**9, 100_000), "How many events are kept.", default="no bound but limit"),
        Field(
            "deduplicate",
            Duration("100ms", "1d", "2m"),
            "For how long an event of the same source and id is taken once only.",
        ),
        Field(
            "full",
            Choice("refuse", "drop-oldest"),
            "What happens at the limit: publishing is refused, or the oldest event is lost, handled or not.",
        ),
        Field("durable", Flag(), "Acknowledged means on disk; false keeps events in memory only."),
        Field(
            "deliver",
            _Plain(
                "deliver",
                "How delivery is tried before an event is put aside as dead.",
                None,
                Field("attempts", Whole(1, 1000, 8), "Tries in all.", default="8"),
                Field(
                    "backoff",
                    Span(Duration("10ms", "1d", "1s"), "1s..5m"),
                    "Pause after the first try .. longest pause; each is twice the one before.",
                    default="1s..5m",
                ),
                Field(
                    "order",
                    ATTRIBUTE,
                    "An attribute, such as subject: events with the same value of it are handed over one after "
                    "another, also while an earlier one is being tried again.",
                    default="none",
                ),
            ),
            "How delivery is tried.",
            default="8 attempts, backoff 1s..5m",
            example={"attempts": 8, "backoff": "1s..5m"},
        ),
        build=_event,
        unbuild=_event_unbuild,
        named=True,
    ),
    kind="event type",
    example={"jede.decided": {"keep": "7d"}},
)


class _Target(Either):
    def read(self, node: Any, reader: Reader, key: str) -> Any:
        value = super().read(node, reader, key)
        return LocalTarget() if value == "local" else value

    def write(self, value: Any) -> Any:
        if isinstance(value, LocalTarget):
            return "local"
        return {"kubernetes": KUBERNETES.write(value)}


IMAGES = Record(
    "images",
    "IDI's own images, each by its digest.",
    Images,
    Field("control", IMAGE, "Control.", needed=True, example="idi/control@sha256:..."),
    Field("sidecar", IMAGE, "The sidecar, which the gateway is made of as well.", needed=True),
    Field("relay", IMAGE, "Relay and broker.", quiet=True, default="needed where there are events"),
)

QUOTA = Record(
    "quota",
    "What all pods of the environment may ask for together.",
    Quota,
    Field("cpu", Cpu(), "CPU.", quiet=True, default="no bound"),
    Field("memory", Size("1MiB", "1024TiB", "64GiB"), "Memory.", quiet=True, default="no bound"),
    Field("pods", Whole(1, 100_000, 100), "Pods.", quiet=True, default="no bound"),
)

SEAL = Record(
    "seal",
    "OpenBao's seal key, 32 bytes in a Secret of yours in the environment's namespace.",
    Seal,
    Field("secret", OBJECT, "The Secret.", needed=True, example="idi-seal"),
    Field("key", SECRET_KEY, "The key in it.", quiet=True, default="seal.key"),
    Field(
        "previous", SECRET_KEY, "The one before it, while it is being replaced.", quiet=True, default="none"
    ),
)

KUBERNETES = Record(
    "kubernetes",
    "A Kubernetes cluster.",
    KubernetesTarget,
    Field("context", CONTEXT, "Context of the kubeconfig.", needed=True),
    Field("namespace", NAMESPACE, "Namespace.", quiet=True, default="PLATFORM-ENVIRONMENT"),
    Field(
        "profile",
        Choice("gke", "eks", "aks"),
        "A provider's managed cluster: values of charts/profiles/PROFILE.yaml for the platform's chart.",
        quiet=True,
        default="none",
    ),
    Field("images", IMAGES, "IDI's own images.", quiet=True, default="none yet: name yours"),
    Field("storage_class", STORAGE_CLASS, "Class of volumes.", quiet=True, default="the cluster's default"),
    Field(
        "gateway",
        Choice("ClusterIP", "NodePort", "LoadBalancer"),
        "Type of the gateway's Service.",
    ),
    Field("dns", Many(CIDR), "Where name servers are that are no pods of kube-system.", default="none"),
    Field("quota", QUOTA, "What all pods may ask for together.", default="no bounds", example={"pods": 100}),
    Field("seal", SEAL, "OpenBao's seal key.", quiet=True, default="one on control's volume"),
)


def _target(given: Given, _node: Table, _reader: Reader) -> Any:
    return given["kubernetes"]


TARGET = _Target(
    Choice("local", otherwise="a map with kubernetes"),
    Record(
        "target",
        "A target that is not this machine.",
        None,
        Field("kubernetes", KUBERNETES, "A Kubernetes cluster.", needed=True, example={"context": "staging"}),
        build=_target,
    ),
)
TARGET_FIELD = Field(
    "target",
    TARGET,
    "Where it runs: `local`, or a cluster.",
    default="local for dev, else the Kubernetes context of the environment's name",
    example={"kubernetes": {"context": "staging"}},
)

_SECTIONS = (
    Field(
        "gateway",
        GATEWAY,
        GATEWAY.about,
        default="embedded issuer, no clients",
        example={"issuer": "embedded"},
    ),
    Field("certificates", CERTIFICATES, CERTIFICATES.about, example={"life": "24h"}),
    Field("defaults", DEFAULTS, DEFAULTS.about, default="none", example={"grace": "10s"}),
)
_MORE = (
    Field("externals", EXTERNALS, "What is called but not run here."),
    Field("events", EVENTS, "Event types; one that is only published or handled has these defaults."),
)


def _given(given: Given, _node: Table, _reader: Reader) -> Given:
    return given


class _Environment(Record):
    """What an environment overrides; in it nothing is required."""

    def schema(self, partial: bool, definitions: dict[str, Any]) -> dict[str, Any]:  # noqa: ARG002
        return super().schema(True, definitions)


ENVIRONMENT_RECORD = _Environment(
    "environment",
    "Where an environment runs and what differs in it: maps merge by key, lists and values replace.",
    None,
    TARGET_FIELD,
    *_SECTIONS,
    Field("modules", MODULES, "What differs in modules.", example={"jede": {"instances": 4}}),
    *_MORE,
    build=_given,
)

ROOT = Record(
    "declaration",
    "The declaration of a platform: its modules, and all that stands around them.",
    None,
    Field("platform", PLATFORM, "Name of the platform.", needed=True),
    *_SECTIONS,
    Field("modules", MODULES, "The modules, by name.", needed=True),
    *_MORE,
    Field(
        "environments",
        Named(
            ENVIRONMENT,
            ENVIRONMENT_RECORD,
            kind="environment name",
            most=MOST_ENVIRONMENTS,
            example={"dev": {"target": "local"}},
        ),
        "Where the same file runs, and what differs there.",
        default="dev, staging and production",
    ),
    build=_given,
)
