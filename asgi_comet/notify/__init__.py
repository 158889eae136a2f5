"""Notifiers: messages to keys, with receipts."""
