"""Who set a field of an object, by its `managedFields`: the name of a program, no proof of who it was. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from idi.parts.targets.kubernetes.pods import SCALES

Json = Mapping[str, Any]
Place = tuple["str | Key", ...]

SCALE_MANAGER = "idi-scale"
OURS = ("helm", "idi", SCALE_MANAGER)
"""Helm as control runs it, control's own client, and what hands a number over to an autoscaler."""
SCALER = "scale"
REPLICAS: Place = ("spec", "replicas")
COUNTED = "Deployment"
"""What an autoscaler may count; a StatefulSet has a volume, and never two writers."""


@dataclass(frozen=True, slots=True)
class Key:
    """One item of a list that is merged by key, as `managedFields` names it too."""

    fields: tuple[tuple[str, Any], ...]

    def __str__(self) -> str:
        return f"[{self.fields[0][1]}]"

    def within(self, entry: Json) -> Any:
        """What an entry of `managedFields` holds for this item."""
        for name, inner in entry.items():
            if name.startswith("k:"):
                found = json.loads(name[2:])
                if all(found.get(field) == value for field, value in self.fields):
                    return inner
        return None


def owner(live: Json, place: Place) -> tuple[str, str]:
    """The manager of this field and the subresource that it came by; another than us before us, the latest first."""
    found = [
        (entry.get("manager", ""), entry.get("subresource", ""), entry.get("time", ""))
        for entry in managed(live)
        if entry.get("subresource") != "status" and _owns(entry.get("fieldsV1", {}), place)
    ]
    found.sort(key=lambda one: (one[0] not in OURS, one[2]))
    return (found[-1][0], found[-1][1]) if found else ("", "")


def last_foreign(live: Json) -> str:
    """Who else changed the object last: of what is not there any more nobody is the owner."""
    found = [
        (entry.get("time", ""), entry.get("manager", ""))
        for entry in managed(live)
        if entry.get("subresource") != "status"
        and entry.get("manager") not in (*OURS, "kube-controller-manager")
    ]
    return max(found)[1] if found else ""


def managed(live: Json) -> list[Json]:
    return list((live.get("metadata") or {}).get("managedFields") or [])


def _owns(fields: Any, place: Place) -> bool:
    for step in place:
        if not isinstance(fields, Mapping):
            return False
        inner = step.within(fields) if isinstance(step, Key) else fields.get(f"f:{step}")
        if inner is None:
            return False
        if inner == {}:
            return True  # a field that is owned as a whole
        fields = inner
    return True


def counted_elsewhere(deployment: Json) -> bool:
    """Whether its number of pods is of an autoscaler that is not of its release. One takes the field from Helm as soon
    as it writes another number; where Helm still has it too, they agree, or ours was switched off."""
    manager, subresource = owner(deployment, REPLICAS)
    by_program = subresource == SCALER and not manager.startswith("kubectl")  # who scales by hand is none
    ours = SCALES in (deployment["metadata"].get("annotations") or {})
    return by_program and not ours and not owned_by_applying(deployment)


def owned_by_applying(deployment: Json) -> bool:
    """Whether its number of pods is some other manager's who applies: whoever applies can also let go of it."""
    return any(
        one.get("operation") == "Apply"
        and one.get("manager") != SCALE_MANAGER
        and "f:replicas" in one.get("fieldsV1", {}).get("f:spec", {})
        for one in managed(deployment)
    )
