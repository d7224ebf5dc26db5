"""The audit log on its way out: as files that other people's tools verify."""
