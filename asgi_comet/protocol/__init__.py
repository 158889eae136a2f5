"""What goes over the wire: bytes in, values out; no I/O, no framework."""
