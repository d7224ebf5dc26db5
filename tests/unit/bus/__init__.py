"""Tests of the parts of the same name."""
