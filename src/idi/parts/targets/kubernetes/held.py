"""What runs a module, by what was written and what its workload says: its revision, how many of it, how it fares.

The workload's annotations have all of it, so a control that starts anew finds what an earlier one wrote. Told late of
what was removed meanwhile it would make a ghost of it: whoever listens asks first.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from idi.declaration.types import ModuleName
from idi.parts.clients.kubernetes_pod import shorten
from idi.parts.clients.quota_words import explained
from idi.parts.targets.interface import Emit
from idi.parts.targets.kubernetes.makers import Maker, Makers, module_of
from idi.parts.targets.kubernetes.pods import AROUND, COUNT, SCALES, SPEC
from idi.parts.targets.recorded import spec_of
from idi.world.events import RevisionDegraded, RevisionEnsured, RevisionRemoved, RevisionScaled
from idi.world.types import RevisionId, RevisionSpec


@dataclass(slots=True)
class Held:
    """`makers` is what was told of workloads; `revisions`: of each module the one that holds, and how many of it;
    `arounds`: a digest of what its release says beside it."""

    emit: Emit
    makers: Makers
    revisions: dict[ModuleName, tuple[RevisionSpec, int]] = field(default_factory=dict)
    arounds: dict[ModuleName, str] = field(default_factory=dict)
    _degraded: dict[ModuleName, str] = field(default_factory=dict)
    _scaled: dict[ModuleName, tuple[RevisionId, int]] = field(default_factory=dict)

    def hold(self, spec: RevisionSpec, count: int, around: str) -> None:
        """This one was written."""
        self._is(spec, count, around)
        for told in self.makers.of(spec.module):
            self.found(told)  # what was told of the revision before it was known here

    def heard(self, document: Maker) -> bool:
        """What its workload says now; False for one of a module that is not known here."""
        if module_of(document) in self.revisions:
            self.found(document)
            return True
        return False

    def forget(self, module: ModuleName) -> None:
        for kept in (self.revisions, self.arounds, self._degraded, self._scaled):
            kept.pop(module, None)

    def found(self, document: Maker) -> None:
        """The same of a workload that surely is there, whoever made it."""
        template = document["spec"]["template"]["metadata"]
        annotations = document["metadata"].get("annotations", {})
        replicas = document["spec"].get("replicas", 1)
        try:
            spec = spec_of(json.loads(template.get("annotations", {})[SPEC]))
        except (KeyError, TypeError, ValueError):
            return  # none of ours
        if spec.module not in self.revisions:
            declared = annotations.get(COUNT, "")
            self._is(spec, int(declared) if declared.isdigit() else replicas, annotations.get(AROUND, ""))
        why = next(
            (
                one.get("message", "")
                for one in document.get("status", {}).get("conditions", [])
                if one["type"] == "ReplicaFailure" and one["status"] == "True"
            ),
            "",
        )
        runs = self.revisions[spec.module][0].revision == spec.revision
        if runs and why != self._degraded.get(spec.module, ""):
            self._degraded[spec.module] = why
            self.emit(RevisionDegraded(spec.module, spec.revision, explained(why) or shorten(why)))
        scaled = replicas if SCALES in annotations else 0
        if runs and (spec.revision, scaled) != self._scaled.get(spec.module):
            self._scaled[spec.module] = (spec.revision, scaled)
            self.emit(RevisionScaled(spec.module, spec.revision, scaled))

    def _is(self, spec: RevisionSpec, count: int, around: str) -> None:
        before = self.revisions.get(spec.module)
        self.revisions[spec.module] = (spec, count)
        self.arounds[spec.module] = around
        self.emit(RevisionEnsured(spec, count, around))
        if before is not None and before[0].revision != spec.revision:
            self._degraded.pop(spec.module, None)
            self.emit(RevisionRemoved(spec.module, before[0].revision))
