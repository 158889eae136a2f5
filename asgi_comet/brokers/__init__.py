"""Brokers: where histories live, and how workers hear of each other's messages."""
