"""Exports a run's variant: adapter, merged model, GGUF, notebook, or a repository on the Hub.

exporter  what a target is       source   which adapter of which base    shards   tensors to safetensors files
exporters the table of targets   folders  folders that appear complete   texts    configuration and tokenizer

What needs torch is passed in: this package writes what the engine computes.
"""
