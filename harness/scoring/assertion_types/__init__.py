"""Assertion types by family: one function and one row for each type."""
