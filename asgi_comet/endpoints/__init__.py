"""Requests that are answered at once."""
