"""Everything that needs torch: loading a base, training adapters on it, answering prompts, merging and measuring.

worker          the process that the runner starts: it does one job on one base model
batched_worker  trains several tasks of a job together, and lets several models answer in one batch
loading         loads and quantises a base, and keeps it trainable
quantized_base  saves the quantised base and reads it again
gguf_conversion the process that makes a base model of a GGUF file
random_weights  makes a base with random weights in the shape of a known configuration
tokenization    applies a loaded model's tokenizer to the rules of `harness.models.conversation_tokens`
trainers/       trains adapters: one with SFTTrainer, or many together
generation/     answers prompts, by PyTorch or llama.cpp
adapters        saves, checks and attaches adapters
fingerprint     describes in words and digests what was trained
merging         merges a base and an adapter into the weights of one model
parity_stages   compares answers and logits of every stage of an export, from adapter to GGUF file
meter           measures wall time and peak memory of a phase
calibration     measures how fast this GPU trains
pointwise       computes norms, gated activations and rotations with the fused kernels of `kernels`
cuda_graphs     runs functions of the same shape as CUDA graphs
log_filters     hides library messages that do not help the reader of a log
"""
