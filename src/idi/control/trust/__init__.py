"""Certificates, keys, tokens and secrets: who may prove what to whom, and how that is renewed."""
