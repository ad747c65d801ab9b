"""The types and rules that all rooms share: suites, settings, trainings, results, errors, and parsing of YAML.

This room imports no other room. The formats and paths of runs, caches and suites belong to other rooms.
"""
