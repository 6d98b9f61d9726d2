"""One run of a flow: where its partitions are worked on, and what mends it when it broke."""
