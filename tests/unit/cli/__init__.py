"""The command line against a stand-in for control, and through a real terminal."""
