"""Runs a benchmark: plans the work, hands it to workers, and records every trial."""
