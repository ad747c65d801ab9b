"""Listeners: objects that receive the events, records and results of a run while it is running.

The progress display and `--sync` are listeners. To add one (an experiment tracker such as trackio or wandb), write one
module in this folder with a subclass of `protocol.Listener`, and add an instance to the list of listeners in
`harness.cli.run`, beside the progress display.
"""
