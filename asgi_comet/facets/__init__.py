"""The calls of `Comet`, by what they are about; each works on the rooms of the hub."""
