"""The transports as ASGI shells of the same shape: read the request, hold it, answer."""
