"""Channels, their messages, their names and their listeners."""
