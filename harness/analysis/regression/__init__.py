"""The regression gate: make baselines, compare runs with them, and decide whether anything became worse."""
