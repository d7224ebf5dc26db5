"""What a broker can answer that a publisher has to tell apart."""

from __future__ import annotations

from idi.parts.errors import PartError, Refused


class BusDown(PartError):
    """The broker cannot be reached, or does not answer in time: whether the event is kept is not known."""


class BusFull(PartError):
    """The topic, or the broker's disk, holds all that it may: the event is not kept."""


class BadEvent(Refused):
    """The broker will never take this event as it is."""
