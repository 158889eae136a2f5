"""What is noticed of several workers where no broker joins them."""
