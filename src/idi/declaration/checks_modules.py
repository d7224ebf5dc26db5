"""What must hold within one module once everything has been read."""

from __future__ import annotations

from idi.declaration.names import peer_variable
from idi.declaration.nearest import listed
from idi.declaration.nodes import Items, Node, Scalar, Table, find, items, keys, names_of
from idi.declaration.reader import Reader
from idi.declaration.references import MOST_REFERENCES, pieces
from idi.declaration.scalars import shown
from idi.declaration.types import DEFAULT_PORT, RESERVED_NAMES, ModuleName, Platform, Reference

_OWN = frozenset({"PORT", "GATEWAY_URL", "EVENTS_URL", "BUS_URL"})


def check_modules(platform: Platform, tree: Table, reader: Reader) -> None:
    for key in keys(tree, "modules"):
        module = find(tree, "modules", key.text)
        if key.text in RESERVED_NAMES:
            reader.report(
                key,
                f"{shown(key.text)} is a name of the platform's own parts; call the module something else.",
            )
        if isinstance(module, Table):
            _variables(module, key.text, reader)
            _ports(module, reader)
            _storage(module, reader)
            _scale(platform, module, key.text, reader)
            _references(tree, module, reader)


def port_names(module: Node | None) -> tuple[str, ...]:
    """Names of a module's ports as written, or the default one's."""
    return names_of(module, "ports") if isinstance(module, Table) and module.get("ports") else (DEFAULT_PORT,)


def port_protocol(module: Node | None, port: str) -> str:
    found = find(module, "ports", port) if module is not None else None
    return found.text if isinstance(found, Scalar) and found.text in ("tcp", "grpc") else "http"


def _variables(module: Table, name: str, reader: Reader) -> None:
    peers = {peer_variable(peer): peer for peer in _called(module)}
    config = set(names_of(module, "config"))
    for section in ("config", "secrets"):
        for key in keys(module, section):
            variable = key.text
            if variable in _OWN or variable.startswith(("IDI_", "OTEL_")):
                reader.report(
                    key, f"{variable} is set by the platform itself for every module; choose another name."
                )
            elif variable in peers:
                reader.report(
                    key,
                    f"{variable} is set by the platform itself, since {name} calls {peers[variable]}; choose another "
                    f"name (its value is also ${{peer.{peers[variable]}.url}}).",
                )
            elif section == "secrets" and variable in config:
                reader.report(key, f"{variable} stands under both config and secrets; keep one.")


def _called(module: Table) -> tuple[str, ...]:
    return tuple(item.text for item in items(module, "calls"))


def _ports(module: Table, reader: Reader) -> None:
    names = port_names(module)
    routes = module.get("routes")
    listed_routes = routes.items if isinstance(routes, Items) else ()
    asked = [find(module, "readiness", "port"), *(find(route, "port") for route in listed_routes)]
    for node in asked:
        if isinstance(node, Scalar) and node.text not in names:
            reader.report(
                node,
                f"port is {shown(node.text)}, which is not under 'ports' ({listed(names)})."
                f"{reader.hint(node.text, names)}",
            )
    for node in asked[1:]:
        if isinstance(node, Scalar) and node.text in names and port_protocol(module, node.text) == "tcp":
            reader.report(node, f"port {node.text} speaks tcp; a route needs one that speaks http or grpc.")
    _spoken(module, names, reader)


def _spoken(module: Table, names: tuple[str, ...], reader: Reader) -> None:
    """Routes, events and readiness by http need a port that speaks the right protocol."""
    if all(port_protocol(module, port) == "tcp" for port in names):
        for section, what in (("routes", "routes need"), ("handles", "events are posted, which needs")):
            node = module.get(section)
            full = (isinstance(node, Items) and node.items) or (isinstance(node, Table) and node.entries)
            if node is not None and full:
                reader.report(node, f"{what} a port that speaks http or grpc, and all here speak tcp.")
    probe, port = find(module, "readiness", "http"), find(module, "readiness", "port")
    if probe is not None:
        chosen = [port.text] if isinstance(port, Scalar) else list(names)
        if all(name in names and port_protocol(module, name) != "http" for name in chosen):
            reader.report(
                probe,
                "readiness by http needs a port that speaks http; write tcp: true, or name such a port.",
            )


def _storage(module: Table, reader: Reader) -> None:
    if module.get("storage") is None:
        return
    instances = module.get("instances")
    if isinstance(instances, Scalar) and instances.text.isdigit() and int(instances.text[:9]) > 1:
        reader.report(
            instances,
            "a module with storage has one instance (two would both write to it); write instances: 1.",
        )
    scale = module.get("scale")
    if scale is not None:
        reader.report(
            scale, "a module with storage has one instance (two would both write to it); remove scale."
        )
    strategy = find(module, "release", "strategy")
    if isinstance(strategy, Scalar) and strategy.text in ("rolling", "canary", "blue-green"):
        reader.report(
            strategy,
            f"strategy {strategy.text} runs the old and the new version at once, and both would write to the storage; "
            "write recreate.",
        )


def _scale(platform: Platform, module: Table, name: str, reader: Reader) -> None:
    found = platform.modules.get(ModuleName(name))
    if found is None or found.scale is None:
        return
    node = find(module, "scale", "max")
    if node is not None and found.scale.max < found.instances:
        reader.report(
            node,
            f"max is {found.scale.max}, less than instances: {found.instances}; raise it, or lower instances.",
        )
    if node is not None and found.instances == 0:
        reader.report(
            node, "a module with instances: 0 cannot be scaled; write instances: 1 or more, or remove scale."
        )


def _references(tree: Table, module: Table, reader: Reader) -> None:
    run = module.get("run")
    if isinstance(run, Scalar):
        _check_text(tree, module, run, reader, on_command_line=True)
    for key in keys(module, "config"):
        value = find(module, "config", key.text)
        if isinstance(value, Scalar):
            _check_text(tree, module, value, reader)


def _check_text(
    tree: Table, module: Table, node: Scalar, reader: Reader, *, on_command_line: bool = False
) -> None:
    if not 0 < node.text.count("${") <= MOST_REFERENCES:
        return
    for offset, piece, reference in pieces(node.text):
        if not isinstance(reference, Reference):
            continue
        wrong = _why_wrong(tree, module, reference.path, reader)
        if wrong:
            reader.report_within(node, offset, piece, f"{shown(piece)}: {wrong}")
        elif on_command_line and reference.path[0] == "secret":
            message = (
                f"{shown(piece)} puts a secret on a command line, which every user of the machine can read"
            )
            reader.warn_within(node, offset, piece, f"{message}; pass it as a variable under 'secrets'.")


def _why_wrong(tree: Table, module: Table, path: tuple[str, ...], reader: Reader) -> str:
    root = path[0]
    if root == "port" and len(path) == 2:
        names = port_names(module)
        if path[1] not in names:
            return f"the module has no port '{path[1]}' ({listed(names)}).{reader.hint(path[1], names)}"
    elif root == "data_dir" and module.get("storage") is None:
        return "the module has no storage; declare it with storage: {size: 1GiB}."
    elif root in ("bus", "events") and not any(
        module.get(key) for key in ("publishes", "handles", "consumes")
    ):
        return "the module has nothing to do with events; say what it publishes, handles or consumes."
    elif root == "secret":
        secrets = [find(module, "secrets", name) for name in names_of(module, "secrets")]
        paths = [
            s.text if isinstance(s, Scalar) else getattr(find(s, "path") if s else None, "text", "")
            for s in secrets
        ]
        if path[1] not in paths:
            return f"the module does not declare this secret under 'secrets'.{reader.hint(path[1], paths)}"
    elif root == "peer":
        return _wrong_peer(tree, module, path, reader)
    return ""


def _wrong_peer(tree: Table, module: Table, path: tuple[str, ...], reader: Reader) -> str:
    peer, called = path[1], _called(module)
    if peer not in called:
        hint = reader.hint(peer, called)
        return f"the module does not call '{peer}'; add it under 'calls'.{hint}"
    other, external = find(tree, "modules", peer), find(tree, "externals", peer)
    if other is None and external is None:
        return ""  # reported where it is called
    if other is None:
        protocol = getattr(find(external, "protocol") if external else None, "text", "tcp")
        if len(path) == 4:
            return f"{peer} is an external and has one port; write ${{peer.{peer}.{path[-1]}}}."
    else:
        names = port_names(other)
        port = path[2] if len(path) == 4 else (names or ("",))[0]
        if port not in names:
            return f"{peer} has no port '{port}' ({listed(names)}).{reader.hint(port, names)}"
        protocol = port_protocol(other, port)
    if path[-1] == "url" and protocol == "tcp":
        return f"what speaks tcp has no URL; write ${{{'.'.join(path[:-1])}.address}}."
    return ""
