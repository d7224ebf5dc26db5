"""What a declaration may say already and this version cannot do yet.

It is refused where a module would miss something that it was promised: better no start than one without its
password. What only waits for its part (a release strategy, a promise that is watched) is not refused.
"""

from __future__ import annotations

from collections.abc import Iterator

from idi.declaration.types import LocalTarget, Module, Platform

SECRETS = "secrets are not given to modules by this version; leave it out until they are"
LOCAL = "Use an environment with target: local."


def elsewhere(platform: Platform) -> str:
    """A sentence where the environment is one that this version cannot reach; else empty."""
    if isinstance(platform.target, LocalTarget):
        return ""
    return f"Environment '{platform.environment}' runs on Kubernetes, which this version cannot do yet."


def unbuilt(platform: Platform) -> list[str]:
    """Sentences with their places, in the order of the modules; empty where everything can be done."""
    found = []
    for module in platform.modules.values():
        for key, what in promises(module):
            origin = platform.origins.get(f"modules.{module.name}.{key}")
            origin = origin or platform.origins.get(f"modules.{module.name}")
            place = f"{origin}: " if origin else ""
            found.append(f"{place}{module.name} has {key}: {what}.")
    return found


def promises(module: Module) -> Iterator[tuple[str, str]]:
    """Keys of the module that need what is not there, and what that is."""
    if module.secrets:
        yield "secrets", SECRETS
    templates = [("run", module.run), *((f"config.{name}", value) for name, value in module.config.items())]
    for key, template in templates:
        roots = {reference.path[0] for reference in template.references()} if template else set()
        if "secret" in roots:
            yield key, SECRETS
