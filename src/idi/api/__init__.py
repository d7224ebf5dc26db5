"""Wire types, paths, views, client, server: the one door to control."""
