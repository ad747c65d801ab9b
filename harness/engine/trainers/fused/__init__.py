"""Trains many adapters in shared passes over one frozen base, which computes once for the rows of all trials.

training        trains in rounds, in which every trial takes one optimizer step
passes          decides which rows go through the base together
stack, layer    hold the adapters of all trials, on the whole base and on one module
block, vectors  store the matrices of many adapters and modules in one matrix or vector
products        computes a module's output and gradients
batch, head     hold the tensors of a pass, and compute the log-probabilities of its targets
recomputation   decides which layers keep their activations for backward
graphs          runs passes of the same shape as CUDA graphs
layout          maps the rows of a pass to trials
trial_state     holds one trial's data order, optimizer and schedule
initialisation  makes and saves adapters exactly as PEFT does
concurrency     estimates how many trials fit in memory at once
probe           measures the cost of training a trial alone
"""
