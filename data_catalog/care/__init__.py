"""Verification and repair of stored partitions, and deletion of unused ones."""
