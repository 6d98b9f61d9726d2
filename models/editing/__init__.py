"""The 2D editor."""
