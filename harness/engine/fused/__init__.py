"""Trains many adapters over one frozen base in one pass: every base product is computed once for the rows of all.

training  the rounds in which all trials step               passes    which rows go through the base together
stack     the adapters of all trials on one base            layer     those on one of its modules
learner   one trial's data order, optimizer and schedule    fresh     adapters as PEFT makes and saves them
width     how many trials fit side by side                  probe     what each of them costs alone
"""
