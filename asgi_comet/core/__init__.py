"""Values and rules of the promise, without input or output."""
