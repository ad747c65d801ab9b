"""Types and rules that all rooms share: suites, settings, trainings, results, errors, and parsing of YAML.

A room is a top-level package of `harness`. `core` imports no other room; the file formats and paths of runs, caches and
suites are defined in other rooms.
"""
