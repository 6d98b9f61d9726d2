"""Verify stored partitions, mend them, and delete those that nothing refers to."""
