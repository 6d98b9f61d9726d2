"""Networks by name, their weights, and parity with the reference implementations."""
