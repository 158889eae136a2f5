"""What users call on a Comet, one file for each page of the docs."""
