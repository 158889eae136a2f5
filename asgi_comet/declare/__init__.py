"""Channels that start when a client subscribes."""
