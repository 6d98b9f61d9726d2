"""Exam of the embedded networks."""
