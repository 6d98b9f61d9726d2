"""Before anything runs: what would, why, and what it costs."""
