"""From what is asked for to the end of it: requests, plans applied, the journal, one change at a time."""
