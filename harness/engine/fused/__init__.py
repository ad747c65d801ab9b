"""Trains many adapters over one frozen base in one pass: every base product is computed once for the rows of all.

passes    which rows go through the base together           stack     the adapters of all trials on one base
learner   one trial's data order, optimizer and schedule    training  the rounds in which all of them step
width     how many trials fit side by side
"""
