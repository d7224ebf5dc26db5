"""JUNZI IDI: one declaration, one plan, two targets, one data plane."""

__version__ = "0.1.0"
