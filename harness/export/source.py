"""Sources of exports: finds a trained adapter and its base by run, variant and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import StoreError, UsageError
from harness.core.model import ModelRef
from harness.core.run import RunManifest, TrialRecord
from harness.core.settings import Quantization, Settings, Variant
from harness.core.training import Status
from harness.hardware.environment import STACK
from harness.models.resolving import check_same
from harness.storage.cache import Cache
from harness.storage.keys import Setup
from harness.storage.manifest import verify_manifest
from harness.storage.runs import RunStore


@dataclass(frozen=True)
class Source:
    """One trained adapter of a run."""

    run: RunManifest
    variant: Variant
    seed: int
    training: str
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
        return self.settings.quantization is Quantization.NF4

    @property
    def label(self) -> str:
        """For file names: the letters, digits, dots and hyphens of the variant's name, and the seed."""
        plain = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.variant.name.replace("=", "-"))
        return f"{plain.strip('.-') or self.variant.id}-seed{self.seed}"


def find(store: RunStore, variant: str, seed: int | None, cache: Cache) -> Source:
    """The adapter of a variant under a seed. `variant` is its name, or a part of it that no other variant's name has.

    Without a seed, the first seed of the run's grid. A confirmed variant also has adapters of the confirmation's seeds.

    Raises:
        UsageError: no variant or several have this name, or the variant was not trained under this seed.
        StoreError: the adapter is not in the cache, or damaged.
    """
    run = store.manifest()
    found = pick(run.plan.variants, variant)
    wanted = run.plan.seeds[0] if seed is None else seed
    record = _trained([r for r in store.records() if r.variant == found.id], found, wanted)
    training = record.training.id if record.training else ""
    folder = cache.adapter(training)
    if not folder.is_dir():
        remedy = "Run the same `harness run` again, in the same folder: it trains only what is missing."
        raise StoreError(f"the adapter of {found.name} under seed {wanted} is not in {cache.root}", remedy=remedy)
    verify_manifest(folder)
    return Source(run, found, wanted, training, cache)


def check_base(source: Source) -> None:
    """Check that the base's files are those of the run.

    Raises:
        UsageError: the base is only a shape and has no files.
        ModelError: files are missing or differ.
    """
    check_real(source)
    check_same(source.model)


def check_real(source: Source) -> None:
    """Check that the base is a real model.

    Raises:
        UsageError: it is only a shape with random weights.
    """
    if source.model.shape_only:
        what = f"{source.model.name} has random weights, so there is nothing to export"
        raise UsageError(what, remedy="Run the benchmark on a real model.")


def saved_base(source: Source) -> Path | None:
    """The quantised base on which the run was evaluated, if the cache still holds it."""
    run = source.run
    versions = {name: run.provenance.versions[name] for name in STACK if name in run.provenance.versions}
    setup = Setup(run.suite, run.model, run.provenance.machine, run.engine, versions)
    name = setup.saved_base(source.settings.quantization)
    return source.cache.base(name) if name else None


def pick(variants: Sequence[Variant], name: str) -> Variant:
    """The variant with this name or id, else the only one whose name contains `name`.

    Raises:
        UsageError: there is none, or there are several.
    """
    exact = [v for v in variants if name in (v.name, v.id)]
    part = exact or [v for v in variants if name.casefold() in v.name.casefold()]
    if len(part) == 1:
        return part[0]
    listed = ", ".join(repr(v.name) for v in part or variants)
    what = f"{name!r} names {len(part)} variants" if part else f"the run has no variant {name!r}"
    raise UsageError(what, remedy=f"Name one of: {listed}.")


def _trained(records: Sequence[TrialRecord], variant: Variant, seed: int) -> TrialRecord:
    good = [r for r in records if r.status is Status.SUCCEEDED and r.training]
    found = next((r for r in good if r.seed == seed), None)
    if found:
        return found
    ended = next((f" ({r.status})" for r in records if r.seed == seed), "")
    seeds = ", ".join(str(s) for s in sorted({r.seed for r in good}))
    remedy = f"Trained under: --seed {seeds}." if seeds else "Choose another variant, or run it again."
    raise UsageError(f"{variant.name} was not trained under seed {seed}{ended}", remedy=remedy)
