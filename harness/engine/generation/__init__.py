"""Answers prompts, in PyTorch or with llama.cpp.

answers              answers prompts with one model, in batches
continuous_batching  answers with the base and many adapters in one batch; a waiting prompt replaces a row that ends
masked_adapters      computes all adapters for all rows of a batch, and masks all but each row's own
kv_cache             holds the attention keys and values of a continuous batch
sampling             chooses the next token
log_probabilities    computes log-probabilities of given texts, without generating
backends             gives PyTorch and llama.cpp one interface
batches              works through items in batches that are halved if memory runs out
"""
