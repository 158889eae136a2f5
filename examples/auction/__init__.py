"""An auction house: rooms, bids, notices, and a board by htmx. See `main`."""
