"""Recipes of the embedded networks, one file each."""
