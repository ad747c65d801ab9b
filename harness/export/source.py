"""Finds the trained adapter to export (the source) by run, variant and seed, and checks its base model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from harness.core.device_profiles import AUTO
from harness.core.errors import StoreError, UsageError
from harness.core.machine import Machine
from harness.core.model import ModelRef
from harness.core.names import BASE
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Quantization, Settings, Variant
from harness.core.suite import Suite
from harness.core.training_outcome import Status
from harness.hardware.environment import STACK, machine
from harness.models.resolving import check_same
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.manifest import verify_manifest
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class Source:
    """A trained adapter of a run, with its variant, seed and base model."""

    run: RunManifest
    variant: Variant
    seed: int
    training: str
    """Key of the adapter in the cache; empty for the base model without an adapter."""
    cache: Cache

    @property
    def model(self) -> ModelRef:
        return self.run.model

    @property
    def adapter(self) -> Path:
        return self.cache.adapter(self.training)

    @property
    def settings(self) -> Settings:
        return self.variant.settings

    @property
    def quantised(self) -> bool:
        """Whether the adapter was trained on an NF4 base."""
        return self.settings.quantization is Quantization.NF4

    @property
    def bare(self) -> Source:
        """The base model without an adapter, as the run evaluated it beside this variant."""
        settings = Settings(quantization=self.settings.quantization)
        return replace(self, variant=Variant(BASE, BASE, settings), seed=0, training="")

    @property
    def label(self) -> str:
        """The variant's name and seed as part of a file name; other characters become hyphens."""
        return training_label(self.variant, self.seed) if self.training else BASE

    @property
    def model_label(self) -> str:
        """The last part of the base model's name as part of a file name."""
        return _part_of_name(PurePosixPath(self.model.name).name) or "model"

    @property
    def suite_label(self) -> str:
        """The suite's name as part of a file name."""
        return suite_label(self.run.suite)


def training_label(variant: Variant, seed: int) -> str:
    """Return a variant's name and a seed as part of a file name; other characters become hyphens."""
    plain = _part_of_name(variant.name.replace("=", "-").replace("_", "-"))
    return f"{plain or variant.id}-seed{seed}"


def suite_label(suite: Suite) -> str:
    """Return a suite's name as part of a file name. A run that somebody else made may name it `../../x`."""
    return _part_of_name(suite.name) or "suite"


def _part_of_name(text: str) -> str:
    """Return a text without the characters that a file name should not have, which become hyphens."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text).strip(".-")


def find(store: RunStore, variant: str, seed: int | None, cache: Cache) -> Source:
    """Find the adapter of a variant under a seed (None: the first seed of the run's grid).

    `variant` is the variant's name, or any part of the name that identifies it. The best variant also has adapters
    under the seeds of its confirmation.

    Raises:
        UsageError: no variant or several variants match, or the variant was not trained under this seed.
        StoreError: the adapter is not in the cache, or its files are damaged.
    """
    run = store.manifest()
    found = pick(run.plan.variants, variant)
    wanted = run.plan.seeds[0] if seed is None else seed
    record = trained([r for r in store.records() if r.variant == found.id], found, wanted)
    training = record.training.id if record.training else ""
    folder = cache.adapter(training)
    if not folder.is_dir():
        remedy = "Run the same `harness run` again, in the same folder: it trains only what is missing."
        raise StoreError(f"the adapter of {found.name} under seed {wanted} is not in {cache.root}", remedy=remedy)
    verify_manifest(folder)
    return Source(run, found, wanted, training, cache)


def check_base(source: Source) -> None:
    """Check that the base model's files are unchanged since the run.

    Raises:
        UsageError: the base model has random weights, so it has no files.
        ModelError: files are missing or have changed.
    """
    check_weights(source.model)
    check_same(source.model)


def check_weights(model: ModelRef) -> None:
    """Check that a base model has trained weights.

    Raises:
        UsageError: the base model has random weights.
    """
    if model.shape_only:
        what = f"{model.name} has random weights, so there is nothing to export"
        raise UsageError(what, remedy="Run the benchmark on a real model.")


def check_mergeable(variant: Variant, remedy: str = "Export it with `--to adapter` and load it with PEFT.") -> None:
    """Check that adding `scaling * B @ A` to each matrix gives the trained model.

    Raises:
        UsageError: the variant is trained with DoRA, which also rescales each matrix.
    """
    if variant.settings.use_dora:
        what = f"{variant.name} is trained with DoRA (use_dora), which merged models and GGUF files cannot hold"
        raise UsageError(what, remedy=remedy)


def check_merged(source: Source, _options: object) -> None:
    """`check_mergeable` as the check of a target whose every file needs it (`Exporter.check`)."""
    check_mergeable(source.variant)


def saved_base(source: Source) -> Path | None:
    """Path of the quantised base that the run was evaluated on; None if it is no longer in the cache."""
    run = source.run
    versions = {name: run.provenance.versions[name] for name in STACK if name in run.provenance.versions}
    setup = Setup(run.suite, run.model, run.provenance.machine, run.engine, versions)
    name = setup.saved_base(source.settings.quantization)
    return source.cache.base(name) if name else None


def evaluation_machine(source: Source) -> Machine:
    """This machine, but with the compute precision of the run, so that answers can be compared with the run's."""
    return replace(machine(AUTO), compute_dtype=source.run.provenance.machine.compute_dtype)


def pick(variants: Sequence[Variant], name: str) -> Variant:
    """The variant with this name or id, else the only variant whose name contains `name`.

    Raises:
        UsageError: no variant or several variants match.
    """
    exact = [v for v in variants if name in (v.name, v.id)]
    part = exact or [v for v in variants if name.casefold() in v.name.casefold()]
    if len(part) == 1:
        return part[0]
    listed = ", ".join(repr(v.name) for v in part or variants)
    what = f"{name!r} names {len(part)} variants" if part else f"there is no variant {name!r}"
    raise UsageError(what, remedy=f"Name one of: {listed}.")


def trained(records: Sequence[TrialRecord], variant: Variant, seed: int) -> TrialRecord:
    """Return the record of a variant's training under a seed.

    Raises:
        UsageError: it was not trained under this seed.
    """
    good = [r for r in records if r.status is Status.SUCCEEDED and r.training]
    found = next((r for r in good if r.seed == seed), None)
    if found:
        return found
    ended = next((f" ({r.status})" for r in records if r.seed == seed), "")
    seeds = ", ".join(f"--seed {s}" for s in sorted({r.seed for r in good}))
    remedy = f"Pass one of: {seeds}." if seeds else "Choose another variant, or run `harness run` again."
    raise UsageError(f"{variant.name} was not trained under seed {seed}{ended}", remedy=remedy)
