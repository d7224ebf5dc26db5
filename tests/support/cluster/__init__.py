"""A real Kubernetes for tests, wholly inside namespaces of its own; `cluster.py` is the way in."""
