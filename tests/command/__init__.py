"""The command as a process and in a terminal, against a control that the tests play."""
