"""Words that several refusals share."""

from __future__ import annotations

from collections.abc import Iterable

from idi.declaration.nearest import nearest


def did_you_mean(wrong: str, valid: Iterable[str]) -> str:
    """` Did you mean 'cam'?` with its leading space, or nothing."""
    found = nearest(wrong, valid)
    return f" Did you mean '{found}'?" if found else ""


def what_failed(failures: Iterable[str]) -> str:
    """`jede, cam failed; gateway refuses route/edge.`: by name, since the reasons were said with their steps."""
    heads = list(dict.fromkeys(failure.partition(": ")[0] for failure in failures))
    lanes = [head for head in heads if " " not in head]  # a module or part; anything else is a sentence
    told = [f"{', '.join(lanes)} failed"] if lanes else []
    return "; ".join([*told, *(head for head in heads if " " in head)]) + "."
