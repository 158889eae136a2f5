"""Helpers of the tests: what serves, connects, reads, breaks and waits.

A `test_` file imports its helpers from here, never from another `test_` file.
"""
