"""Answers prompts, in PyTorch or with llama.cpp.

answers              one model answers prompts, in batches
continuous_batching  the base and many adapters answer in one batch; a row that ends makes room for the next
kv_cache             keys and values of the rows of a continuous batch
sampling             chooses the next token
log_probabilities    of given texts, without generating
backends             one interface to PyTorch and llama.cpp
batches              work in batches that are halved if memory runs out
"""
