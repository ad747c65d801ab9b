"""Hides library messages that do not help the reader of a log or a terminal."""

from __future__ import annotations

import logging
import warnings

_FOR_KERNELS = "Failed to load CPU gemm_4bit_forward from kernels-community"


def hide_library_messages() -> None:
    """Hide progress bars, deprecation warnings and advice of libraries from the terminal."""
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()
    hide_kernel_advice()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def filter_worker_log() -> None:
    """Hide progress bars and advice of libraries, which would make a worker's log unreadable."""
    from datasets import disable_progress_bars
    from transformers.utils import logging as of_transformers

    hide_kernel_advice()
    of_transformers.disable_progress_bar()
    disable_progress_bars()


def hide_kernel_advice() -> None:
    """Hide bitsandbytes' advice to install the package `kernels`; call this before bitsandbytes is imported.

    With that package, bitsandbytes packs 4-bit weights for inference. Adapters below packed weights cannot be trained,
    so `loading.keep_trainable` switches packing off anyway.
    """
    # Add the filter to this logger itself: a filter on a parent logger does not apply to it.
    logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(_is_useful)


def _is_useful(record: logging.LogRecord) -> bool:
    """Whether to log a record: not the advice to install `kernels`, but why an installed `kernels` failed to load."""
    why = record.args[0] if isinstance(record.args, tuple) and record.args else None
    absent = isinstance(why, ModuleNotFoundError) and why.name == "kernels"
    return not (absent and str(record.msg).startswith(_FOR_KERNELS))
