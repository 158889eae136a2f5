"""The figures, events and lists of one worker, for operators."""
