"""The parts of one Comet."""
