"""What several workers on Redis cost, and how fast they are."""
