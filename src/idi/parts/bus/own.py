"""Topics of the platform's own beside those of events."""

from __future__ import annotations

DEAD = "idi.dead"
"""Dead letters: the event as it was, and in headers of ours where it went and what became of it."""

TRIES = "idi.tries"
"""What attempts came to that failed, so that a dead letter knows all of its own."""

KEEP_DEAD_S = 30 * 86400.0

DEAD_TOPIC, DEAD_MODULE, DEAD_SEQUENCE = "idi-topic", "idi-module", "idi-sequence"
DEAD_REASON, DEAD_ATTEMPTS, DEAD_TRIES = "idi-reason", "idi-attempts", "idi-tries"
"""Headers of a dead letter; reason and tries are JSON."""


def again_topic(module: str) -> str:
    """Where dead letters wait that are to be handed to that module once more, and to nobody else."""
    return f"idi.again.{module}"
