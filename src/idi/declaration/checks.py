"""What must hold between the parts of a declaration once everything has been read.

Names are looked up in the tree, not among the values, so that a module with one bad line still
exists for those who call it and no mistake is reported twice in different words.
"""

from __future__ import annotations

from idi.declaration.checks_kubernetes import check_kubernetes
from idi.declaration.checks_modules import check_modules
from idi.declaration.names import CALLED, PREFIX, SCOPE
from idi.declaration.nodes import Items, Node, Scalar, Table, find, items, keys, names_of
from idi.declaration.reader import Reader
from idi.declaration.scalars import shown
from idi.declaration.spec_module import MODULE_RECORD
from idi.declaration.types import (
    OWN_EVENTS,
    RESERVED_NAMES,
    EmbeddedIssuer,
    ExternalIssuer,
    LocalTarget,
    Platform,
    Route,
)

_OWN_PATHS = ("/healthz/",)
_ISSUER_PATHS = ("/oauth2/", "/.well-known/")
"""Where the embedded issuer answers."""


def check(platform: Platform, tree: Table, reader: Reader) -> None:
    """Everything that does not depend on where the platform runs."""
    check_modules(platform, tree, reader)
    _externals(tree, reader)
    _calls(tree, reader)
    _routes(platform, tree, reader)
    _scopes(platform, tree, reader)
    _events(platform, tree, reader)


def check_target(platform: Platform, tree: Table, target: Node | None, reader: Reader) -> None:
    """What the environment's target needs; `target` is where it is written, if it is."""
    local = isinstance(platform.target, LocalTarget)
    needed = "run" if local else "image"
    for key in keys(tree, "modules"):
        module = find(tree, "modules", key.text)
        if not isinstance(module, Table):
            continue
        if module.get(needed) is None and not _meant(module, needed, reader):
            remedy = (
                f"runs on this machine; write a command line, such as run: python {key.text}.py"
                if local
                else "runs on Kubernetes; write an image, or the folder with its Dockerfile"
            )
            reader.report(key, f"{key.text} has no '{needed}', and {platform.environment} {remedy}.")
    if not local:
        check_kubernetes(platform, tree, target, reader)


def _meant(module: Table, needed: str, reader: Reader) -> bool:
    """Whether a key that does not exist (and was reported) was meant for the needed one."""
    unknown = [name for name in names_of(module) if name not in MODULE_RECORD.fields]
    return any(reader.nearest(name, MODULE_RECORD.fields) == needed for name in unknown)


def _externals(tree: Table, reader: Reader) -> None:
    modules = {key.text: key for key in keys(tree, "modules")}
    for key in keys(tree, "externals"):
        if key.text in RESERVED_NAMES:
            reader.report(
                key,
                f"{shown(key.text)} is a name of the platform's own parts; call the external something else.",
            )
        elif key.text in modules:
            line = modules[key.text].line
            reader.report(
                key, f"{shown(key.text)} is also a module (line {line}); give one of them another name."
            )


def _calls(tree: Table, reader: Reader) -> None:
    known = dict.fromkeys(names_of(tree, "modules") + names_of(tree, "externals"))
    for name in names_of(tree, "modules"):
        for call in items(tree, "modules", name, "calls"):
            if call.text == name:
                reader.report(
                    call,
                    f"calls names '{name}' itself; a module needs no permission to call itself, remove it.",
                )
            elif call.text not in known and CALLED.fits(call.text):
                hint = reader.hint(call.text, known)
                reader.report(call, f"calls names {shown(call.text)}, which no module is called.{hint}")


def _routes(platform: Platform, tree: Table, reader: Reader) -> None:
    seen: dict[tuple[object, ...], list[tuple[str, Route, Node]]] = {}
    named: dict[str, Node] = {key.text: key for key in keys(tree, "modules")}
    embedded = isinstance(platform.gateway.issuer, EmbeddedIssuer)
    own = (*_OWN_PATHS, *_ISSUER_PATHS) if embedded else _OWN_PATHS
    for name, module in platform.modules.items():
        written = _written_routes(tree, name)
        for index, route in enumerate(module.routes):
            node: Node = written[index] if written else named[name]
            where = find(node, "path") or node
            if route.path.startswith(own):
                reader.report(
                    where, f"path {route.path} is the gateway's own; choose another, such as /v1/{name}/."
                )
            same = seen.setdefault((route.host, route.path, route.headers), [])
            for other, earlier, place in same:
                if earlier.methods == route.methods or set(earlier.methods) & set(route.methods):
                    owners = {id(place): other, id(where): name}
                    first, second = sorted((place, where), key=lambda at: (at.line, at.column))
                    reader.report(
                        second,
                        f"{route.path} is also a route of {owners[id(first)]} (line {first.line}), with the same "
                        "host, methods and headers; change the path, or tell them apart by one of these.",
                    )
                    break
            same.append((name, route, where))


def _written_routes(tree: Table, module: str) -> list[Node]:
    """The routes in the tree that became one: those whose path could be read."""
    routes = find(tree, "modules", module, "routes")
    paths = [(route, find(route, "path")) for route in (routes.items if isinstance(routes, Items) else ())]
    return [route for route, path in paths if isinstance(path, Scalar) and PREFIX.fits(path.text)]


def _scopes(platform: Platform, tree: Table, reader: Reader) -> None:
    required = {
        scope for module in platform.modules.values() for route in module.routes for scope in route.scopes
    }
    if isinstance(platform.gateway.issuer, ExternalIssuer):
        for key in keys(tree, "gateway", "clients")[:1]:
            reader.warn(
                key,
                "clients are for the embedded issuer; yours knows its own clients, so these mean nothing.",
            )
        return
    for client in names_of(tree, "gateway", "clients"):
        for scope in items(tree, "gateway", "clients", client, "scopes"):
            if SCOPE.fits(scope.text) and scope.text not in required:
                hint = reader.hint(scope.text, required)
                reader.warn(scope, f"scope {shown(scope.text)} is asked for by no route.{hint}")


def _events(platform: Platform, tree: Table, reader: Reader) -> None:
    published = {event for module in platform.modules.values() for event in module.publishes}
    taken = {event for module in platform.modules.values() for event in (*module.handles, *module.consumes)}
    for name in names_of(tree, "modules"):
        handled = keys(tree, "modules", name, "handles")
        consumed = tuple(items(tree, "modules", name, "consumes"))
        both = {key.text for key in handled} & {item.text for item in consumed}
        for does, named in (("handles", handled), ("consumes", consumed)):
            for one in named:
                if one.text not in published:
                    hint = reader.hint(one.text, published)
                    reader.warn(one, f"{name} {does} {shown(one.text)}, which no module publishes.{hint}")
        for item in consumed:
            if item.text in both:
                reader.report(
                    item,
                    f"{shown(item.text)} is posted to {name} under handles already; keep one of the two.",
                )
        for item in (*items(tree, "modules", name, "publishes"), *consumed, *handled):
            _not_ours(item, reader)
    for key in keys(tree, "events"):
        _not_ours(key, reader)
        if key.text not in published and key.text not in taken:
            hint = reader.hint(key.text, published)
            reader.warn(key, f"no module publishes or handles {shown(key.text)}.{hint}")


def _not_ours(name: Scalar, reader: Reader) -> None:
    if name.text.startswith(OWN_EVENTS):
        reader.report(
            name, f"event types that begin with {OWN_EVENTS} are the platform's own; choose another name."
        )
