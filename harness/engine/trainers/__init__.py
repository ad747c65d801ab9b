"""Trainers: each implements `protocol.Trainer` and is one row of `registry.trainers`.

To add a trainer (such as DPO), write one module in this folder, one row in `registry`, and one member of
`harness.core.engines.Engine` with its row in `RECIPES`.

protocol  the interface of a trainer: input, result and methods
sft       TRL's SFTTrainer, one trial after another: the reference
fused     trains many trials in shared passes over one base
"""
