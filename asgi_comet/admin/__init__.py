"""Operation of a running server over HTTP."""
