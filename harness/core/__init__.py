"""Data types that all rooms share (suites, settings, trainings, results), the errors, and rules about them.

This room imports no other room, and reads and writes no run, cache or suite.
"""
