"""Targets of `harness export --to KIND`, one module each."""
