"""The machine: its GPU, the environment of a run, checks (`harness doctor`), and estimates of memory and time."""
