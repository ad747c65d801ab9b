"""What libraries say that no reader of a log or a terminal should hear."""

from __future__ import annotations

import logging
import warnings

_FOR_KERNELS = "Failed to load CPU gemm_4bit_forward from kernels-community"


def quieten() -> None:
    """Where a person asks a model: no bars that redraw themselves, no word on names that will change, no kernels."""
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()
    overlook_kernels()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def overlook_kernels() -> None:
    """Before bitsandbytes is imported: it then calls the absence of a package a failure, and advises to install it.

    The kernel packs weights, after which nothing below them learns (`base.keep_trainable`): it is switched off anyway.
    """
    # To the logger itself, since a filter does not see what loggers below it are told.
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_of_use)


def _is_of_use(record: logging.LogRecord) -> bool:
    """False for that advice alone; where `kernels` is there, why it could not be loaded is still told."""
    why = record.args[0] if isinstance(record.args, tuple) and record.args else None
    absent = isinstance(why, ModuleNotFoundError) and why.name == "kernels"
    return not (absent and str(record.msg).startswith(_FOR_KERNELS))
