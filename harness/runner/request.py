"""The request for a benchmark run: the options of `harness run` as one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.core import device_profiles
from harness.core.engines import Engine
from harness.core.job import WIDTH


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to train and evaluate, and where to store the results. Each field is an option of `harness run`."""

    suite: Path
    """Folder with suite.yaml, train.jsonl and grids/."""
    grid: str = "quick"
    model: str = "pocket"
    profile: device_profiles.Profile = device_profiles.AUTO
    seeds: tuple[int, ...] | None = None
    """Seeds to use instead of the grid's seeds; None: use the grid's seeds."""
    confirm_seeds: int = 3
    """Number of fresh seeds under which the best variant is trained again; 0 skips the confirmation."""
    output: Path | None = None
    """Run directory; None: a new one in reports/runs, or that of the same run if it was started before."""
    fresh: bool = False
    """Ignore the results of earlier runs."""
    timeout: float | None = None
    """Time limit of one trial in seconds."""
    skip_unsupported: bool = False
    """Ignore the parts of the suite that the harness does not support."""
    root: Path | None = None
    """Folder in which all files that the suite names must be; None: the suite's own folder."""
    allow_code: bool = False
    """Allow the suite to run its own code to judge answers."""
    judge: str | None = None
    """The judge: MODEL, MODEL@URL, or `suite` to permit the suite's own endpoint; None: the suite's local judge."""
    timeline: bool = False
    """Also evaluate the main cases after every epoch of every training."""
    adapters: tuple[Path, ...] = ()
    """Folders of adapters trained elsewhere, which are scored beside the grid's variants."""
    arguments: tuple[str, ...] = ()
    """The command line after `harness`, which is stored with the run."""
    skip_predicted_oom: bool = False
    """Skip trials that are predicted to run out of memory."""
    budget: float | None = None
    """Time limit of the whole run in seconds, including the report."""
    sync: Path | None = None
    """Folder to which finished trials are copied, and from which a run on a new machine resumes."""
    engine: Engine = Engine.AUTO
    race: bool = False
    """Stop variants that can no longer be chosen, at planned looks."""
    width: int = WIDTH
    """Largest number of trials that are trained in one pass."""
