"""Everything that needs torch: load and quantise a base, train adapters on it, answer prompts, watch memory.

base      loads a model once and keeps it trainable        rows      conversations to token ids and labels
reference trains with TRL's SFTTrainer                     adapters  saves, checks and attaches what was trained
answers   prompts to answers, one model after another      meter     wall time and peak memory of a phase
fused     trains many adapters in one pass                 mixed     many models answer in one batch
"""
