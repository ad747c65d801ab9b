"""The machine: GPU, device profiles, environment, and estimates of memory and time."""
