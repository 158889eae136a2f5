"""Faults against three workers and a Redis, and a checker of what clients and publishers saw."""
