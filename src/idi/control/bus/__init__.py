"""The broker and what control does with it: topics, events for people, its care."""
