"""The long-running process: compose the parts, fold events, apply plans, answer the API."""
