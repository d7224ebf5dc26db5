"""Stand-ins: small programs that behave as modules do, one folder for each language."""
