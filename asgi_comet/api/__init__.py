"""The methods of `Comet`, one file for each page of the docs."""
