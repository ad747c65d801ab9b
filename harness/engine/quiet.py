"""What libraries say about themselves at a terminal where a person asks a model."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """No bars that redraw themselves, no advice to install another kernel, no word on names that will change."""
    from transformers.utils import logging as of_transformers

    of_transformers.disable_progress_bar()
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
