"""A run, a variant's name and a seed to the adapter that was trained, whole, and the base that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import StoreError, UsageError
from harness.models import check_same
from harness.provenance import STACK
from harness.records import ModelRef, Quantization, RunManifest, Settings, Status, TrialRecord, Variant
from harness.store import Cache, RunStore, verify_manifest
from harness.sweep import Setup


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
        """For names of files: letters, digits, dots and hyphens of the variant's name, and the seed."""
        plain = "".join(c if c.isalnum() or c in ".-" else "-" for c in self.variant.name.replace("=", "-"))
        return f"{plain.strip('.-') or self.variant.id}-seed{self.seed}"


def find(store: RunStore, variant: str, seed: int | None, cache: Cache) -> Source:
    """The adapter of the variant that `variant` names, in full or by a part that no other has, under `seed`.

    Without a seed it is the first one of the run's grid. A variant that was confirmed has the confirmation's seeds too.

    Raises:
        UsageError: no such variant, more than one, or none that was trained under this seed.
        StoreError: the adapter is no longer in the cache, or damaged.
    """
    run = store.manifest()
    found = pick(run.plan.variants, variant)
    wanted = run.plan.seeds[0] if seed is None else seed
    record = _trained([r for r in store.records() if r.variant == found.id], found, wanted)
    training = record.training.id if record.training else ""
    folder = cache.adapter(training)
    if not folder.is_dir():
        remedy = "Run the same `harness run` again: it trains only what is missing. Start it where the run was started."
        raise StoreError(f"the adapter of {found.name} under seed {wanted} is not in {cache.root}", remedy=remedy)
    verify_manifest(folder)
    return Source(run, found, wanted, training, cache)


def check_base(source: Source) -> None:
    """Hold the base's files to those that the run was made with.

    Raises:
        UsageError: there are none: only its shape is known.
        ModelError: they are gone or others.
    """
    check_real(source)
    check_same(source.model)


def check_real(source: Source) -> None:
    """Hold the base to being more than a shape.

    Raises:
        UsageError: only its shape is known.
    """
    if source.model.shape_only:
        what = f"{source.model.name} has random weights, so there is nothing to export"
        raise UsageError(what, remedy="Run the benchmark on a real model.")


def saved_base(source: Source) -> Path | None:
    """The quantised base that the run evaluated on, if the cache still holds it."""
    run = source.run
    versions = {name: run.provenance.versions[name] for name in STACK if name in run.provenance.versions}
    setup = Setup(run.suite, run.model, run.provenance.machine, run.engine, versions)
    name = setup.saved_base(source.settings.quantization)
    return source.cache.base(name) if name else None


def pick(variants: Sequence[Variant], name: str) -> Variant:
    """The variant of this name or id, else the only one with `name` in its name.

    Raises:
        UsageError: there is none, or more than one.
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
