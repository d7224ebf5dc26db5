"""Tests of the built-in registry."""
