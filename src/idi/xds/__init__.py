"""The relay: between HTTP and the bus, a process of its own with an identity of its own."""
