"""What touches the world: a folder per kind, a file per vendor; kinds never import each other."""
