"""The journal: every change and every step of it, durable before its effect, and the audit log at once."""
