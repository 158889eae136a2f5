"""Sessions, client processes, users and their rights."""
