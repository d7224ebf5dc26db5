"""Declaration + overlays -> desired; (desired, world) -> ordered steps. Pure."""
