"""Faults planted in our own code, each of which `CometApp.check` must find."""
