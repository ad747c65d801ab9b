"""What a notebook is made of: a suite, a variant and a model, from a finished run or before any run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.conversations import with_system_prompt
from harness.core.device_profiles import REFERENCE
from harness.core.errors import ModelError, UsageError
from harness.core.measurement import GIB
from harness.core.rehearsal import Rehearsal, place
from harness.core.run import RunManifest
from harness.core.settings import Plan, Variant, unpredictable
from harness.core.suite import Example, Message, Suite
from harness.core.trainer_arguments import FP16
from harness.core.turn_tokens import TurnTokens
from harness.core.units import DeviceKind
from harness.export.source import check_mergeable, check_weights, pick, suite_label, trained, training_label
from harness.hardware.environment import versions
from harness.hardware.estimate import Fit
from harness.hardware.estimate.predictions import Workload, named_workload, predict_trial, resolved_workload, target_gpu
from harness.models import smollm2
from harness.models.gguf import is_gguf
from harness.models.gguf_bases import Conversions
from harness.models.resolving import Description, find_description, resolve
from harness.models.token_check import check_tokens
from harness.storage.cache import Cache
from harness.storage.locations import CACHE
from harness.storage.runs import RunStore

Printer = Callable[[str], None]
SMALL = 1_000_000_000
"""Number of parameters from which on a model needs a GPU to be trained in a class."""


@dataclass(frozen=True)
class NotebookModel:
    """The base model as a notebook finds it."""

    name: str
    """A name on the Hub, the name of a folder or a GGUF file to upload, `pocket` or `smollm2`."""
    revision: str = ""
    toy: bool = False
    gguf: bool = False
    """Whether it comes as a GGUF file, as `smollm2` does."""
    folder: bool = False
    """Whether it is a folder of this machine."""

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user must do before the notebook finds the model."""
        if not self.folder and (not self.gguf or self.name == smollm2.NAME):
            return ()
        what = "folder, with all its files," if self.folder else "file"
        where = f"as {self.name} into the session, beside the notebook (on Colab into /content)"
        hub = "or name a model of the Hub with --model"
        return (f"Colab and Kaggle cannot reach this machine: upload the {what} {where}, {hub}.",)


@dataclass(frozen=True)
class Contents:
    """All that a notebook is made of."""

    origin: Mapping[str, str | int]
    """Names of the suite, the grid or run, the variant and the seed."""
    suite: Suite
    variant: Variant
    seed: int
    model: NotebookModel
    compute_dtype: str
    """The data type in which a GPU computes."""
    versions: Mapping[str, str]
    """Versions of packages to install, by their names."""
    turns: TurnTokens | None
    """How the chat template closes answers; None if it could not be read without transformers."""
    rehearsed: tuple[Example, ...] = ()
    """Rehearsal rows with the answers of the run's base model."""
    questions: tuple[str, ...] = ()
    """Prompts of rehearsal that the base model still has to answer, in the order in which the trial draws them."""
    parameters: int | None = None
    """Number of the base model's parameters; None if it is not known."""
    memory: float | None = None
    """Least bytes of GPU memory that training or merging takes; None if there is no prediction."""
    notices: tuple[str, ...] = ()
    """Sentences for the user who writes the notebook."""

    @property
    def label(self) -> str:
        """The name of the file without its suffix."""
        return f"{suite_label(self.suite)}-{training_label(self.variant, self.seed)}"


# --- from a finished run -----------------------------------------------------------------------------------------


def of_run(store: RunStore, name: str | None, seed: int | None) -> Contents:
    """Return the contents from a run. Without a name, the variant is the one that the run chose.

    Raises:
        UsageError: no variant or several variants match, it was not trained under this seed, its weights are random, or
            its adapter cannot be merged.
        StoreError: there are no results.
    """
    run = store.manifest()
    check_weights(run.model)
    variant = pick(run.plan.variants, name or _chosen(store, run.plan))
    words = ["harness", "export", str(store.root), variant.name, "--to", "adapter"]
    words += [] if seed is None else ["--seed", str(seed)]
    check_mergeable(variant, f"Keep the adapter itself and load it with PEFT: `{shlex.join(words)}`.")
    chosen = run.plan.seeds[0] if seed is None else seed
    trained([record for record in store.records() if record.variant == variant.id], variant, chosen)
    on = run.provenance.machine
    try:
        workload = resolved_workload(run.model, run.suite, run.rehearsal)
    except (ModelError, OSError):  # such as a model that is no longer on this machine
        workload = None
    return _with_predictions(
        Contents(
            {"suite": run.suite.name, "run": store.root.name, "variant": variant.name, "seed": chosen},
            run.suite,
            variant,
            chosen,
            _model_of_run(run),
            on.compute_dtype if on.kind is DeviceKind.CUDA else FP16,
            run.provenance.versions,
            run.tokens,
            rehearsed=run.added_rows(variant.settings, chosen),
            notices=() if run.tokens else (_UNKNOWN_TURNS.format("the run has no record of it"),),
        ),
        workload,
    )


def _chosen(store: RunStore, plan: Plan) -> str:
    if len(plan.variants) == 1:
        return plan.variants[0].name
    chosen = store.results().choice.variant
    if chosen is None:
        names = ", ".join(repr(variant.name) for variant in plan.variants)
        raise UsageError("the run chose no variant", remedy=f"Name one of: {names}.")
    return chosen


def _model_of_run(run: RunManifest) -> NotebookModel:
    model = run.model
    gguf = bool(model.weights)
    return NotebookModel(model.name, model.revision, model.toy, gguf, not (model.toy or model.revision or gguf))


# --- before any run ----------------------------------------------------------------------------------------------


def of_suite(
    suite: Suite,
    plan: Plan,
    rehearsal: Rehearsal | None,
    name: str | None,
    model: str,
    seed: int | None,
    show: Printer,
) -> Contents:
    """Return the contents from a suite and a grid, whose variant `name` is trained on `model`.

    The model's tokenizer must be on this machine, or is downloaded. `smollm2` and GGUF files are converted.

    Raises:
        UsageError: no variant or several variants match, its adapter cannot be merged, or the model has random weights.
        ModelError: the model cannot be found, or its chat template does not close answers.
        SuiteError: a row or a prompt cannot be written with the model's chat template.
    """
    if name is None and len(plan.variants) > 1:
        names = ", ".join(repr(variant.name) for variant in plan.variants)
        what = f"the grid {plan.grid} has {len(plan.variants)} variants, and a notebook trains one"
        raise UsageError(what, remedy=f"Name it with --row: {names}.")
    variant = pick(plan.variants, name or plan.variants[0].name)
    check_mergeable(variant, "Train it with `harness run`, or name a variant without use_dora with --row.")
    chosen = plan.seeds[0] if seed is None else seed
    found = _described(model, show)
    turns = check_tokens(suite, [variant.settings.max_length], found.tokenizer or Path(), found.config)
    try:
        workload = named_workload(model, suite, rehearsal)
    except ModelError:
        workload = None
    notices = (_UNKNOWN_TURNS.format(turns),) if isinstance(turns, str) else turns.notices
    return _with_predictions(
        Contents(
            {"suite": suite.name, "grid": plan.grid, "variant": variant.name, "seed": chosen},
            suite,
            variant,
            chosen,
            _model_named(model, found),
            REFERENCE.dtype,
            versions(),
            None if isinstance(turns, str) else turns,
            questions=_questions(suite, rehearsal, chosen) if variant.settings.rehearsal else (),
            notices=notices,
        ),
        workload,
    )


_UNKNOWN_TURNS = (
    "The model's tokenizer was not read ({}), so the notebook assumes that its chat template ends each answer with the "
    "end token of the configuration and writes nothing behind it."
)


def _described(model: str, show: Printer) -> Description:
    """Describe a model with its tokenizer, for which `smollm2` and GGUF files are converted.

    Raises:
        UsageError: it has random weights.
    """
    found = find_description(model)
    if found.tokenizer is None or model == "pocket" or model.startswith("shape:"):
        check_weights(resolve(model, conversions=Conversions(report=show)))
        found = find_description(model)
    return found


def _model_named(name: str, found: Description) -> NotebookModel:
    path = Path(name).expanduser()
    if name in ("pocket", smollm2.NAME):
        return NotebookModel(name, toy=name == "pocket", gguf=name == smollm2.NAME)
    if path.exists():
        return NotebookModel(path.resolve().name, gguf=is_gguf(path), folder=path.is_dir())
    # The folder of a model of the Hub is named after the commit.
    return NotebookModel(name.partition("@")[0], found.tokenizer.name if found.tokenizer else "")


def _questions(suite: Suite, rehearsal: Rehearsal | None, seed: int) -> tuple[str, ...]:
    def drawn(question: str) -> str:
        return place(with_system_prompt(suite.system_prompt, (Message("user", question),)), seed)

    return tuple(sorted(rehearsal.prompts, key=drawn)) if rehearsal else ()


# --- predictions -------------------------------------------------------------------------------------------------


def _with_predictions(contents: Contents, workload: Workload | None) -> Contents:
    if workload is None:
        return contents
    found = replace(contents, parameters=workload.shape.parameters)
    target = target_gpu(REFERENCE, Cache(CACHE))
    if target is None or unpredictable(contents.variant.settings):
        return found
    predicted = predict_trial(workload, contents.variant.settings, target)
    # The merged model answers in 16 bits, without the training beside it.
    least = max(predicted.memory.allocated, 2.0 * workload.shape.parameters)
    too_large = predicted.fit is Fit.TOO_LARGE or least > target.capacity
    notice = f"Warning: this needs about {least / GIB:.1f} GiB of GPU memory, which a {REFERENCE.title} does not have."
    return replace(found, memory=least, notices=(*contents.notices, *([notice] if too_large else [])))
