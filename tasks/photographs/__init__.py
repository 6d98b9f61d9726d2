"""Portraits from a user's photographs, without a store: aligned pictures, their cameras, and a sheet to look at."""
