"""Repair, retry, remake and delete partitions; check this machine."""
