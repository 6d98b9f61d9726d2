"""Verify what is stored, mend it, and delete what nothing refers to."""
