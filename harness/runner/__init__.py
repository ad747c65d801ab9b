"""Runs a benchmark: prepares the run, starts worker processes, and stores one record per trial.

benchmark       the stages of `harness run`
preparation     checks before anything trains
rescoring       `harness score`
request         options of a run
planned_trials  the trials of a grid and of its confirmation
scheduling      which trials run, and in what order
budget          the time limit (`--budget`)
sweep           runs the trials of a plan
work_items      a trial with its prompts and its record
race            stops variants that can no longer be chosen (`--race`)
search          adds variants to a plan, batch after batch (`search:` in a grid)
reuse           results of earlier sessions: how a run resumes
dispatch        starts workers, and retries after a crash
jobs            the job file of a worker
recorder        makes and stores records
trial_timer     measures trials for the time limit
phase_costs     time and memory of answering
executors/      how a worker is started: add a cluster here
listeners/      what follows a run: add a tracker here
"""
