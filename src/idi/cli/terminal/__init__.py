"""What people see: text and colour, a table in place, progress, and what is waited on meanwhile."""
