"""Channels that start by themselves when a client asks for them."""
