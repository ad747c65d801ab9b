"""Types and rules that every other package of the harness may import."""
