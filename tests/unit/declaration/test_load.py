"""What the loader makes of a right file: defaults, environments, where values come from, and its bounds."""

from __future__ import annotations

import time

import pytest

from idi.declaration.frozen import Frozen
from idi.declaration.load import Loaded, Rejected, load
from idi.declaration.source import MOST_BYTES
from idi.declaration.types import (
    HeaderMatch,
    KubernetesTarget,
    LocalTarget,
    Module,
    Platform,
    Port,
    Reference,
    Release,
    Route,
    Template,
)
from tests.support.scale import scale


def loaded(text: str | bytes, environment: str = "dev") -> Platform:
    result = load(text, environment=environment)
    assert isinstance(result, Loaded), str(result)
    return result.platform


def module(lines: str, more: str = "", environment: str = "dev") -> Module:
    text = "platform: junzi\nmodules:\n  jede:\n    run: ./jede\n    image: jede\n"
    text += "".join(f"    {line}\n" for line in lines.splitlines()) + more
    return next(module for name, module in loaded(text, environment).modules.items() if name == "jede")


@pytest.mark.requirement("S1")
def test_three_lines_are_a_platform() -> None:
    platform = loaded("platform: hello\nmodules:\n  hello: {run: python hello.py}\n")
    assert (platform.name, platform.environment, platform.target) == ("hello", "dev", LocalTarget())
    [only] = platform.modules.values()
    assert only.run == Template(("python hello.py",))
    assert only.routes == (
        Route("/v1/hello/", rewrite="/", scopes=("hello.call",), timeout_s=15.0, port="http"),
    )
    assert only.ports == (Port("http"),)
    assert (only.readiness.http, only.readiness.port, only.instances, only.grace_s) == (
        "/ready",
        "http",
        1,
        10.0,
    )
    assert platform.every_scope() == ("hello.call",)


def test_routes_that_are_written() -> None:
    assert module("routes: []").routes == ()
    [plain, free, public, narrow] = module(
        "routes:\n"
        "  - {path: /a/}\n"
        "  - {path: /b/, scopes: []}\n"
        "  - {path: /c/, public: true}\n"
        "  - {path: /d/, methods: [PUT, GET], headers: {x-b: '2', x-a: '1'}, host: d.example.com,\n"
        "     timeout: 0s, body: 1KiB}\n"
    ).routes
    assert plain.scopes == ("jede.call",)
    assert (free.scopes, free.public) == ((), False)
    assert (public.scopes, public.public) == ((), True)
    assert narrow.methods == ("GET", "PUT")
    assert narrow.headers == (HeaderMatch("x-a", "1"), HeaderMatch("x-b", "2"))
    assert (narrow.host, narrow.timeout_s, narrow.body_bytes) == ("d.example.com", 0.0, 1024)


def test_ports_decide_routes_and_readiness() -> None:
    several = module("ports: {db: tcp, web: http, rpc: grpc}")
    assert [port.name for port in several.ports] == ["db", "web", "rpc"]
    assert several.routes[0].port == "web"
    assert (several.readiness.http, several.readiness.port) == ("/ready", "web")
    bare = module("ports: {db: tcp}", "defaults: {readiness: {http: /up, every: 1s}}\n")
    assert bare.routes == ()
    assert (bare.readiness.http, bare.readiness.tcp, bare.readiness.port) == ("", True, "db")
    assert bare.readiness.every_s == 1.0
    assert module("ports: {rpc: grpc}").readiness.tcp
    assert module("readiness: {command: ./check}").readiness.http == ""
    asked = module("ports: {db: tcp}\nreadiness: {command: ./check}").readiness
    assert (asked.command, asked.tcp, asked.http) == ("./check", False, "")


def test_storage_has_one_writer() -> None:
    defaults = "defaults: {instances: 3, release: {strategy: canary}, scale: {max: 5, cpu: 50%}, grace: 3s}\n"
    stored = module("storage: {size: 1.5GiB}", defaults)
    assert (stored.instances, stored.release, stored.scale, stored.grace_s) == (
        1,
        Release("recreate"),
        None,
        3.0,
    )
    assert stored.storage is not None
    assert stored.storage.size_bytes == 3 * 512 * 1024 * 1024
    free = module("calls: []", defaults)
    assert (free.instances, free.release) == (3, Release("canary", (0.1, 0.5), 120.0))


def test_defaults_merge_and_the_module_wins() -> None:
    defaults = "defaults: {readiness: {http: /up, every: 100ms}, config: {A: x, B: y}}\n"
    got = module("readiness: {http: /mine}\nconfig: {B: z}", defaults)
    assert (got.readiness.http, got.readiness.every_s) == ("/mine", 0.1)
    assert got.config == Frozen({"A": Template(("x",)), "B": Template(("z",))})
    assert module("readiness: {tcp: true}", defaults).readiness.http == ""


def test_config_values_are_passed_as_written() -> None:
    got = module("config: {N: 8080, F: 0.25, T: true, Q: '1.10', E: '', R: 'a-${port}-$${b}-$HOME'}").config
    assert {name: value.parts for name, value in got.items()} == {
        "N": ("8080",),
        "F": ("0.25",),
        "T": ("true",),
        "Q": ("1.10",),
        "E": (),
        "R": ("a-", Reference(("port",)), "-${b}-$HOME"),
    }


def test_secrets_as_variables_and_as_files() -> None:
    got = module("secrets: {A: jede/a, B: {path: jede/b, as: file}}")
    assert got.secrets == Frozen({"A": "jede/a", "B": "jede/b"})
    assert got.secret_files == ("B",)


def test_environments_without_a_section() -> None:
    text = "platform: junzi\nmodules:\n  jede: {run: ./jede, image: jede}\n"
    assert loaded(text).target == LocalTarget()
    assert loaded(text, "staging").target == KubernetesTarget("staging")
    assert loaded(text, "production").target == KubernetesTarget("production")
    assert isinstance(load(text, environment="qa"), Rejected)
    more = text + "environments: {qa: {target: local}}\n"
    assert loaded(more, "qa").target == LocalTarget()
    assert loaded(more).target == LocalTarget()
    assert isinstance(load(more, environment="staging"), Rejected)


@pytest.mark.requirement("S1")
def test_every_value_says_where_it_comes_from() -> None:
    text = (
        "platform: junzi\n"
        "defaults: {grace: 4s}\n"
        "modules:\n"
        "  jede:\n"
        "    run: ./jede\n"
        "    instances: 2\n"
        "    routes:\n"
        "      - {path: /v1/jede/, timeout: 5s}\n"
        "environments:\n"
        "  dev:\n"
        "    modules: {jede: {instances: 3, config: {A: b}}}\n"
    )
    origins = loaded(text).origins
    assert str(origins["modules.jede.run"]) == "platform.yaml:5:10"
    assert str(origins["modules.jede.grace"]) == "platform.yaml:2:19"
    assert str(origins["modules.jede.routes.0.timeout"]) == "platform.yaml:8:36"
    assert str(origins["modules.jede.instances"]) == "platform.yaml:11:33"
    assert origins["modules.jede.instances"].kind == "environment"
    assert origins["modules.jede.config.A"].kind == "environment"
    assert origins["modules.jede.run"].kind == "file"
    assert "modules.jede.pool" not in origins
    assert loaded(text, "dev") == loaded(text.replace("platform: junzi", "# moved\nplatform: junzi"), "dev")


def test_events_that_are_used_exist() -> None:
    text = (
        "platform: junzi\nmodules:\n"
        "  jede: {run: ./jede, publishes: [jede.made], handles: {cam.made: /e}}\n"
        "events: {jede.made: {keep: 1h, deliver: {backoff: 2s..1m}}}\n"
    )
    events = loaded(text).events
    assert sorted(events) == ["cam.made", "jede.made"]
    made = events["jede.made"]
    assert (made.keep_s, made.attempts, made.backoff_first_s, made.backoff_last_s) == (3600.0, 8, 2.0, 60.0)


def test_externals_have_a_host_and_a_port() -> None:
    text = "platform: junzi\nmodules: {jede: {run: ./jede}}\n"
    text += 'externals: {six: {address: "[::1]:6379", protocol: http}}\n'
    six = loaded(text).externals["six"]
    assert (six.host, six.port, six.protocol) == ("::1", 6379, "http")


def test_a_platform_can_be_a_key_and_never_changes() -> None:
    text = "platform: junzi\nmodules: {jede: {run: ./jede, config: {A: b}}}\n"
    one, other = loaded(text), loaded(text)
    assert {one: 1}[other] == 1
    with pytest.raises(TypeError):
        one.modules["x"] = None  # type: ignore[index]


def test_too_long_a_file_is_refused_before_it_is_parsed() -> None:
    text = b"platform: junzi\nmodules: {jede: {run: ./jede}}\n#"
    assert isinstance(load(text.ljust(MOST_BYTES, b"x")), Loaded)
    far_too_long = text.ljust(100 * MOST_BYTES, b"[")
    started = time.process_time()
    result = load(far_too_long)
    assert time.process_time() - started < 0.5
    assert isinstance(result, Rejected)
    assert "1048576" in result.mistakes[0].message


HOSTILE = {
    "brackets": b"[" * MOST_BYTES,
    "braces": b"{" * MOST_BYTES,
    "dashes": b"- " * (MOST_BYTES // 2),
    "questions": b"? " * (MOST_BYTES // 2),
    "one long word": b"a" * MOST_BYTES,
    "one long key": b"a" * (MOST_BYTES - 10) + b": b",
    "many keys": b"".join(b"k%d: x\n" % n for n in range(80_000)),
    "the same key": b"a: b\n" * (MOST_BYTES // 5),
    "many wrong modules": b"platform: x\nmodules:\n"
    + b"".join(b"  m%d: {rnu: x}\n" % n for n in range(20_000)),
    "many unknown calls": b"platform: x\nmodules:\n"
    + b"".join(b"  m%d: {run: x, calls: [n%d]}\n" % (n, n) for n in range(3_000)),
    "many references": b"platform: x\nmodules: {a: {run: '" + b"${port}" * 100_000 + b"'}}\n",
    "many open references": b"platform: x\nmodules: {a: {run: '" + b"${" * 400_000 + b"'}}\n",
    "many wrong references": b"platform: x\nmodules: {a: {run: '" + b"${x} " * 150_000 + b"'}}\n",
    "wrong references everywhere": b"platform: x\nmodules:\n  a:\n    run: x\n    config:\n"
    + b"".join(b"      A%d: x${y}\n" % n for n in range(950)),
    "many environments": b"platform: x\nmodules: {a: {run: x}}\nenvironments:\n"
    + b"".join(b"  e%d: {target: local, certificates: {life: 1h}}\n" % n for n in range(10_000)),
    "heavy environments": b"platform: x\nmodules:\n"
    + b"".join(b"  m%d: {run: x, config: {A: b}}\n" % n for n in range(scale(200, 1000)))
    + b"environments:\n"
    + b"".join(b"  e%d: {certificates: {life: 1h}}\n" % n for n in range(30)),
    "routes that collide": b"platform: x\nmodules:\n"
    + b"".join(b"  m%d: {run: x, routes: [%s]}\n" % (n, b"{path: /a/}, " * 100) for n in range(600)),
    "long lists": b"platform: x\nmodules: {a: {run: x, publishes: ["
    + b", ".join(b"e%d" % n for n in range(100_000))
    + b"]}}\n",
    "digits": b"platform: " + b"1" * (MOST_BYTES - 100) + b"\nmodules: {}\n",
    "blanks in a command": b"platform: x\nmodules: {a: {run: x, readiness: {command: '"
    + b" " * 500_000
    + b"'}}}\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_a_file_does_takes_long(name: str) -> None:
    """A step that takes the square of the file's length would take minutes at 1 MiB, and seconds at an eighth."""
    text = HOSTILE[name][: scale(MOST_BYTES // 8, MOST_BYTES)]
    started = time.process_time()
    load(text)
    assert time.process_time() - started < scale(15, 60)
