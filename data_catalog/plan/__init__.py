"""Which partitions run, and why."""
