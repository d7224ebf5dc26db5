"""What is: instances, revisions, parts; events; the fold. Pure."""
