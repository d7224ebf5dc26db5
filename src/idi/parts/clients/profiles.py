"""What charts/profiles says for a provider's clusters: values of the platform's chart, of which modules share some."""

from __future__ import annotations

from typing import Any

from idi.declaration.plain import plain
from idi.declaration.types import KubernetesTarget
from idi.parts.clients.helm import charts
from idi.parts.errors import PartError


def profile_values(name: str) -> dict[str, Any]:
    """Nothing where no profile is named."""
    if not name:
        return {}
    path = charts() / "profiles" / f"{name}.yaml"
    try:
        found: dict[str, Any] = plain(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PartError(
            f"Profile {name} cannot be read: {error}", "Install it again.", retryable=False
        ) from error
    return found


def name_servers(target: KubernetesTarget) -> tuple[str, ...]:
    """Where DNS is asked that is no pod of kube-system: as declared, else as its profile says."""
    said = _at(profile_values(target.profile), "networkPolicy", "dns", "cidrs")
    return target.dns or tuple(str(one) for one in said or ())


def storage_class(target: KubernetesTarget) -> str:
    """The class of volumes, control's and modules' alike; empty: the cluster's default."""
    return target.storage_class or str(
        _at(profile_values(target.profile), "control", "storage", "class") or ""
    )


def _at(values: Any, *keys: str) -> Any:
    for key in keys:
        values = values.get(key) if isinstance(values, dict) else None
    return values
