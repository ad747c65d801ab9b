"""Trains many adapters over one frozen base in one pass: every base product is computed once for the rows of all.

training        the rounds in which every trial takes one step
passes          which rows go through the base together
stack, layer    the adapters of all trials on one base, and on one of its modules
layout          which rows of a pass belong to which trial
trial_state     one trial's data order, optimizer and schedule
initialisation  adapters as PEFT initialises and saves them
concurrency     how many trials fit side by side
probe           what each trial costs alone
"""
