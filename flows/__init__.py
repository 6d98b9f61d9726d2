"""The order of work: flows, their runner, tracking, and the command line."""
