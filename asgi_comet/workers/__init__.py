"""Detection of several workers without a broker between them."""
