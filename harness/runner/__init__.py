"""Runs a benchmark: prepares the run, starts worker processes, and stores one record per trial.

benchmark    the stages of `harness run`     sweep         runs the trials of a plan
preparation  checks before anything trains   work_items    a trial with its prompts and its record
rescoring    `harness score`                 dispatch      starts workers, retries after a crash
scheduling   which trials run, in what order jobs          the job file of a worker
budget       time limit (`--budget`)         recorder      makes and stores records
trials       grid and confirmation trials    reuse         results of earlier sessions: how a run resumes
phase_costs  time and memory of answering    executors/    how a worker is started: add a cluster here
request      options of a run                listeners/    what follows a run: add a tracker here
"""
