"""The Python stand-in: a module without business, for the platform to host; run it as `python -m standins.python`."""
