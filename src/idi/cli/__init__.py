"""One file per command group: parse, ask, print. Starts fast: heavy imports only where needed."""
