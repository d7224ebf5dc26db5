"""Whose pods are being made anew though their revision is the same: another sidecar came, or a change is put back.

Pods do not tell by their labels then. What makes them does: whether all are of its template as it was after the last
write, which its generation names. It is asked once after the write; the rest is heard. Whether they are ready, agents
say sooner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from idi.declaration.types import ModuleName
from idi.parts.targets.interface import Emit
from idi.parts.targets.kubernetes.makers import Maker, Makers, name_of
from idi.parts.targets.kubernetes.pods import COUNT
from idi.world.events import RevisionAnew
from idi.world.types import RevisionId


@dataclass(slots=True)
class Anew:
    emit: Emit
    makers: Makers
    _waited: dict[ModuleName, tuple[RevisionId, dict[str, Maker]]] = field(default_factory=dict)
    """By name, each as it was after the write."""

    def wait(self, module: ModuleName, revision: RevisionId, makers: Sequence[Maker]) -> None:
        """For what these make; the same revision as before, or one that was found."""
        waited = {name_of(one): one for one in makers if not made(one)}
        waited = {name: one for name, one in waited.items() if not self._said(one, self.makers.named(name))}
        if waited:
            self._waited[module] = revision, waited
            self.emit(RevisionAnew(module, revision, True))
        else:
            self.end(module)

    def end(self, module: ModuleName) -> None:
        """There is nothing to wait for."""
        if (waited := self._waited.pop(module, None)) is not None:
            self.emit(RevisionAnew(module, waited[0], False))

    def forget(self, module: ModuleName) -> None:
        self._waited.pop(module, None)

    def heard(self, module: ModuleName, document: Maker) -> None:
        name = name_of(document)
        _, waited = self._waited.get(module, ("", {}))
        if name in waited and self._said(waited[name], document):
            del waited[name]
            if not waited:
                self.end(module)

    @staticmethod
    def _said(waited: Maker, told: Maker | None) -> bool:
        """Whether all are made, by a word of the same object that is not of before."""
        return (
            told is not None
            and told["metadata"].get("uid") == waited["metadata"].get("uid")
            and told["metadata"].get("generation", 0) >= waited["metadata"].get("generation", 0)
            and made(told)
        )


def made(maker: Maker) -> bool:
    """Whether all pods that there are are of its newest template, and as many as are declared: an autoscaler may want
    more than there is room for."""
    status, wanted = maker.get("status", {}), maker["spec"].get("replicas", 1)
    declared = (maker["metadata"].get("annotations") or {}).get(COUNT, "")
    least = min(wanted, int(declared)) if declared.isdigit() else wanted
    return bool(
        status.get("observedGeneration") == maker["metadata"].get("generation")
        and status.get("updatedReplicas", 0) == status.get("replicas", 0) >= least
    )
