"""Base models and adapters: finding and downloading models, their architectures, and the tokens of conversations."""

from __future__ import annotations

from pathlib import Path

POCKET = Path(__file__).parent / "pocket"
"""The folder of the toy model that comes with the package."""
