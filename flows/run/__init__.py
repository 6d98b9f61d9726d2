"""Run of a flow: its session, workers, services and products."""
