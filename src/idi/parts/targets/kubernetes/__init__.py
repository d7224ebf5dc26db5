"""The Kubernetes target: modules as Helm releases, their pods as instances."""
