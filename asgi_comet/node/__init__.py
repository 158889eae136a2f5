"""The rooms of one Comet."""
