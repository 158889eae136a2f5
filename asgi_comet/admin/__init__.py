"""Operating a running server over HTTP."""
