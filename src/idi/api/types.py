"""What goes over the control API's wire: documents as TypedDicts, JSON on both sides.

Standard library only and no dataclasses: the command line reads these on its fast path. Times are
RFC 3339 in UTC. A request that changes something answers JSON lines (`Progress`), the last of which is
of type `done`; errors are problem+json (RFC 9457).
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class InstanceView(TypedDict):
    """`by`: who runs it, where that is not the platform. `node`: on which node of a cluster its pod is; there `id` is
    the pod's name and `address` where others reach it, empty until it has one."""

    id: str
    address: str
    state: Literal["starting", "ready", "unready", "stopping", "failed"]
    since: str
    pid: int
    sidecar_pid: int
    revision: str
    restarts: int
    reason: str
    by: NotRequired[str]
    node: NotRequired[str]


class FiguresView(TypedDict):
    """Over the last sampling window of `window_s` seconds; `denied` counts since the sidecar started."""

    window_s: float
    requests_per_s: float
    errors_ratio: float
    p95_ms: float
    denied: int


class ScaleView(TypedDict):
    least: int
    most: int


class ModuleView(TypedDict):
    """`routes` are the paths under which the gateway serves it, as long as it is declared. With `scale` an autoscaler
    says how many there are, and `desired` is what it says now."""

    name: str
    version: str
    desired: int
    ready: int
    state: Literal["starting", "ready", "unready", "stopping", "failed"]
    since: str
    reason: str
    instances: list[InstanceView]
    routes: NotRequired[list[str]]
    scale: NotRequired[ScaleView]
    figures: NotRequired[FiguresView]


class PartView(TypedDict):
    """One of IDI's own processes. `instances` where it runs as a module does (the bus, the relay)."""

    name: str
    state: Literal["absent", "starting", "ready", "unready", "failed"]
    since: str
    pid: int
    reason: str
    restarts: int
    instances: NotRequired[list[InstanceView]]
    figures: NotRequired[FiguresView]


class RejectionView(TypedDict):
    node: str
    resource: str
    message: str
    since: str


class ControlView(TypedDict):
    pid: int
    since: str
    version: str


class UrlView(TypedDict):
    url: str


class ConsoleView(TypedDict):
    """`url` is null as long as there is no console."""

    url: str | None


class StatusView(TypedDict):
    """`warnings` are sentences a person should read now (sealed, degraded, laptop isolation)."""

    platform: str
    env: str
    target: str
    control: ControlView
    gateway: UrlView
    console: ConsoleView
    changing: str
    parts: list[PartView]
    modules: list[ModuleView]
    rejections: list[RejectionView]
    warnings: list[str]


class StepView(TypedDict):
    """One step of a plan, for people: `symbol` is `+` start, `~` change, `-` stop, `.` wait."""

    module: str
    kind: Literal[
        "start-part",
        "stop-part",
        "ensure",
        "retry",
        "await-ready",
        "remove",
        "lend",
        "detach",
        "rotate",
    ]
    symbol: str
    text: str
    reason: str


class AuditView(TypedDict):
    """A page of the audit log: the signed head (a C2SP checkpoint) and entries from `start` on, each in base64; `size`
    entries are covered by the head. Fewer than asked for may come."""

    origin: str
    verifier: str
    head: str
    size: int
    start: int
    entries: list[str]


class DriftView(TypedDict):
    """What somebody changed on the cluster: `field` is empty where the whole object is gone, `declared` and `there`
    where a value is not told. `manager` is the program that wrote it, as the cluster knows it; `left`: a controller
    owns the field, and it stays as it is."""

    module: str
    object: str
    field: str
    declared: str
    there: str
    manager: str
    left: bool


class RefusedView(TypedDict):
    """What would be refused if the plan was done: of which object, in whose words, and what helps."""

    module: str
    object: str
    reason: str
    way_out: str


class PlanView(TypedDict):
    steps: list[StepView]
    origins: dict[str, str]
    warnings: list[str]
    drift: list[DriftView]
    refused: list[RefusedView]


class Progress(TypedDict):
    """`type`: `started` (change accepted, `change` is its number), `step` (with `state`; its `reason` while it runs is
    what it waits for), `message` (a sentence), `done` (`ok`, and `reason` where not). `lines` are an instance's last
    lines."""

    type: Literal["started", "step", "message", "done"]
    change: NotRequired[int]
    step: NotRequired[StepView]
    state: NotRequired[Literal["running", "done", "failed"]]
    seconds: NotRequired[float]
    text: NotRequired[str]
    lines: NotRequired[list[str]]
    ok: NotRequired[bool]
    reason: NotRequired[str]
    way_out: NotRequired[str]


class UpRequest(TypedDict):
    action: Literal["up"]
    text: str
    file: str


class DeployRequest(TypedDict):
    """These modules as `text` declares them, the others as they run; no name means all of them."""

    action: Literal["deploy"]
    text: str
    file: str
    modules: list[str]


class ScaleRequest(TypedDict):
    action: Literal["scale"]
    modules: dict[str, int]


class RestartRequest(TypedDict):
    action: Literal["restart"]
    modules: list[str]


class ConfigRequest(TypedDict):
    """Other values for some of a module's variables (`set`), and the file's own again (`unset`). `expect` is the
    version at which they were read: if it is another by now, nothing is changed."""

    action: Literal["config"]
    module: str
    set: dict[str, str | int | float | bool]
    unset: list[str]
    expect: int


class RunRequest(TypedDict):
    """A seat for an instance that whoever asks starts themselves; theirs until they end. Control fills in `by` and
    `pid`, whatever is said."""

    action: Literal["run"]
    module: str
    by: NotRequired[str]
    pid: NotRequired[int]


class HandOverRequest(TypedDict):
    """What somebody runs themselves is ready: one of ours goes. Control asks itself for it."""

    action: Literal["hand-over"]
    module: str


class GiveBackRequest(TypedDict):
    """One of ours comes back, and what somebody ran themselves goes. `why` is for the journal."""

    action: Literal["give-back"]
    module: str
    why: NotRequired[str]


class DownRequest(TypedDict):
    action: Literal["down"]


class SecretRequest(TypedDict):
    """`value` in base64; without it a random one is made and shown to nobody."""

    action: Literal["secret"]
    path: str
    value: NotRequired[str]


class KeysRequest(TypedDict):
    """`keys` are names of keys, or `all`. `now` for `tokens` alone: every token that is out ends."""

    action: Literal["keys"]
    keys: list[str]
    now: NotRequired[bool]


ChangeRequest = (
    UpRequest
    | DeployRequest
    | ScaleRequest
    | RestartRequest
    | ConfigRequest
    | DownRequest
    | SecretRequest
    | KeysRequest
    | RunRequest
    | HandOverRequest
    | GiveBackRequest
)


class VariableView(TypedDict):
    """One variable that the platform gives a module. `value` null: a `secret` that is not shown, or what only a living
    instance has."""

    name: str
    value: str | None
    secret: bool


class EnvironmentView(TypedDict):
    """`instance` is the one whose numbers these are; null where none lives."""

    module: str
    instance: str | None
    variables: list[VariableView]


class StartedRequest(TypedDict):
    """The process that was started in a lent seat."""

    pid: int


class RunView(TypedDict):
    """An instance that somebody runs themselves. `standing`: one of ours is gone for it. `over`: why it is given
    back. `ended`: it is gone, and `ready` ours are there; `down`: all is going."""

    module: str
    instance: str
    by: str
    state: str
    reason: str
    standing: bool
    over: str
    ready: int
    ended: bool
    down: bool


class ValueView(TypedDict):
    """One variable; `value` is null for a secret, of which only is said that it is there."""

    name: str
    value: str | None
    origin: str


class ModuleConfigView(TypedDict):
    """`version` counts what `idi config set` changed."""

    module: str
    version: int
    values: list[ValueView]


class ConfigView(TypedDict):
    modules: list[ModuleConfigView]


class TokenRequest(TypedDict):
    """Without `client`: a token of the operator's own. `scopes` empty: all it may have."""

    client: NotRequired[str]
    new_secret: NotRequired[bool]
    scopes: NotRequired[list[str]]
    ttl_s: NotRequired[float]


class TokenView(TypedDict):
    token: NotRequired[str]
    expires_in: NotRequired[int]
    scope: NotRequired[str]
    client_id: NotRequired[str]
    client_secret: NotRequired[str]


class Problem(TypedDict):
    """RFC 9457. `way_out` says what the reader can do; `mistakes` list FILE:LINE:COL messages."""

    type: str
    title: str
    status: int
    detail: str
    way_out: NotRequired[str]
    mistakes: NotRequired[list[str]]


class RegistrationRequest(TypedDict):
    module: str
    port: int
    ttl_s: float


class RegistrationView(TypedDict):
    instance: str
    credential: str
    ttl_s: float
    mesh_address: str


class SecretView(TypedDict):
    """What may be known of a secret. `version` 0 and `missing`: a module declares it and nobody has set it."""

    path: str
    version: int
    since: str | None
    modules: list[str]
    missing: bool


class SecretsView(TypedDict):
    secrets: list[SecretView]


class KeyView(TypedDict):
    """`since` and `due` are null where nobody knows or nothing is due; `kept` are files of former keys."""

    name: str
    protects: str
    since: str | None
    due: str | None
    due_by_itself: bool
    kept: list[str]


class KeysView(TypedDict):
    keys: list[KeyView]


class LogsRequest(TypedDict):
    """`sources`: modules, instances, their sidecars (`jede-1.sidecar`) or parts; none: every module. `tail`: the last
    lines of each process alone, 0 all that are kept; `since` in seconds since the epoch. `follow`: then what comes."""

    sources: list[str]
    tail: int
    since: float
    follow: bool


class LogView(TypedDict):
    """A line that `source` printed; `module` is empty for what is not a module's own output. A `note` says in `line`
    what of a source is left out, and `live` that lines are new from here on."""

    type: Literal["line", "note", "live"]
    time: str
    source: str
    module: str
    line: str


# --- events -----------------------------------------------------------------------------------------


class EventView(TypedDict):
    """An event as the bus keeps it. `event` is the CloudEvent in its JSON form, or null with `malformed` saying why
    what lies there is none."""

    topic: str
    sequence: int
    at: str
    event: dict[str, Any] | None
    malformed: NotRequired[str]


class PublishRequest(TypedDict):
    """`event` is a CloudEvent in its JSON form."""

    event: dict[str, Any]


class PublishedView(TypedDict):
    """`duplicate`: one of the same source and id was there already, and this one was not added."""

    topic: str
    sequence: int
    duplicate: bool


class TryView(TypedDict):
    at: str
    reason: str


class DeadView(TypedDict):
    """A dead letter. `id` names it for a replay; `tries` are the attempts that it had, oldest first."""

    id: int
    topic: str
    module: str
    at: str
    reason: str
    attempts: int
    tries: list[TryView]
    event: dict[str, Any] | None


class ReplayRequest(TypedDict):
    """`ids` of dead letters; without them all, of `module` or of every one."""

    ids: NotRequired[list[int]]
    module: NotRequired[str]


class ReplayView(TypedDict):
    """`left`: those to whose module nothing is posted (any more); `gone`: ids that no dead letter has (any more)."""

    replayed: list[int]
    left: list[int]
    gone: list[int]
