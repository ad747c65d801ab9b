"""Everything that needs torch: load a base, train adapters on it, answer prompts, merge and measure.

worker          the process that the runner starts: one job over one base
batched_worker  the tasks of a job that are trained or answered together
loading         loads and quantises a base, and keeps it trainable
quantized_base  the quantised base on disk
random_weights  a base with random weights in the shape of a known configuration
tokenization    conversations to token ids and labels
trainers/       trains adapters: SFTTrainer, or many trials in one pass
generation/     answers prompts, by PyTorch or llama.cpp
adapters        saves, checks and attaches adapters
fingerprint     what was trained, in digests
merging         base and adapter to the weights of one model
parity_stages   the same prompts at every stage from adapter to GGUF file
meter           wall time and peak memory of a phase
calibration     how fast this GPU trains
log_filters     hides messages of libraries that are of no use to a reader
"""
