"""`python -P -m harness.report.charts.drawing_process`: draws Vega-Lite charts, in a child process with limits.

A crash in the native code that draws costs the picture, but not the report.
"""

from __future__ import annotations

import sys
from typing import Any

import vl_convert

from harness.core.limited_process import serve


def draw(shared: Any, item: Any) -> str:  # noqa: ARG001
    """Return the SVG of one specification, given as JSON. Nothing is loaded from the network."""
    return vl_convert.vegalite_to_svg(item, allowed_base_urls=[])


if __name__ == "__main__":
    serve(draw, sys.argv[1])
