"""Executors: start a worker for a job file and yield the worker's events.

`processes` starts a worker process on this machine; `inline` calls the worker's function in this process, for tests and
debugging. To add an executor (for a cluster such as Slurm), write one module in this folder with a class that has the
method `run` of `protocol.Executor`: submit `python -m harness.engine.worker JOB`, and yield the events that the worker
prints, one JSON object per line, as `processes` does. Then pass an instance to `harness.runner.benchmark.run`, as
`harness.cli.run` does.
"""
