"""What this platform costs, measured: one file per figure (README.md)."""
