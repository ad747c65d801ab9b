"""Executors: start a worker for a job file and yield the worker's events.

`processes` starts worker processes on this machine; `ray_cluster` starts them on the nodes of a Ray cluster, with
`node_jobs`; `slurm_cluster` submits jobs to Slurm, which start them, with `slurm_node`; `inline` calls the worker's
function in this process, for tests and debugging. To add an executor, write one module in this folder with a
subclass of `protocol.Executor`: start `python -m harness.engine.worker JOB`, and yield the events that the worker
prints, one JSON object per line, as `processes` does. Then add it to `choice` and to `harness.core.executors`.
"""
