"""Measurements of the server, ours beside others. Not tests: they assert nothing about time."""
