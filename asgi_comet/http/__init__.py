"""Tools for ASGI requests; they know no channels."""
