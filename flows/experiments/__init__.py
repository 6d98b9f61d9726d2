"""What the flows `adapt-style`, `ablate` and `claims` consist of."""
