"""(desired, world) -> routes, edges, policies, endpoints, in no vendor's words. Pure."""
