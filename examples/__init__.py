"""Applications that use asgi_comet; each is run by a test."""
