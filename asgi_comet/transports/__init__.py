"""ASGI shells, one per transport, of the same shape: read the request, hold it, answer."""
