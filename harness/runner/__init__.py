"""Runs a benchmark: prepares the run, starts worker processes, and stores one record per trial.

request      options of a run                sweep         runs the trials of a plan
preparation  checks before anything trains   work_items    a trial with its prompts and its record
benchmark    the stages of `harness run`     dispatch      starts workers, retries after a crash
rescoring    `harness score`                 jobs          the job file of a worker
scheduling   which trials run, in what order recorder      makes and stores records
budget       time limit (`--budget`)         executors/    how a worker is started: add a cluster here
trials       grid and confirmation trials    listeners/    what follows a run: add a tracker here
"""
