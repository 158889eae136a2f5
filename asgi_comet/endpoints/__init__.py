"""Endpoints: requests that are answered at once."""
