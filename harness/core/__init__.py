"""The types and rules that all rooms share: suites, settings, trainings, results, errors, and parsing of YAML.

This room imports no other room, and knows nothing of where runs, caches and suites are stored.
"""
