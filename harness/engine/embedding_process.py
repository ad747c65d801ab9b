"""`python -P -m harness.engine.embedding_process`: measures the similarity of texts with sentence-transformers."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.core.limited_process import serve

PACKAGE = "sentence_transformers."


def similarities(model: Any, pairs: Any) -> list[float]:
    """Return the cosine similarity of the two texts of each pair."""
    found = _loaded(str(model))
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    vectors = found.encode(texts, normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
    place = {text: n for n, text in enumerate(texts)}
    return [float(vectors[place[first]] @ vectors[place[second]]) for first, second in pairs]


@lru_cache(maxsize=1)
def _loaded(name: str) -> Any:
    folder = Path(name)
    check_modules(folder / "modules.json" if folder.is_dir() else _downloaded(name))
    from sentence_transformers import SentenceTransformer  # takes seconds, which a refused model need not cost

    # Without safetensors, the weights would be a pickle, which can run code.
    return SentenceTransformer(name, device="cpu", model_kwargs={"use_safetensors": True})


def _downloaded(name: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(name, "modules.json"))
    except Exception as error:  # noqa: BLE001 - the Hub's client raises many types
        why = str(error).strip().partition("\n")[0][:200]
        raise ValueError(f"there is no such folder, and the Hugging Face Hub did not give it ({why})") from None


def check_modules(listed: Path) -> None:
    """Raise ValueError if a model names modules of other packages, which would be imported, or none at all."""
    try:
        names = [str(entry["type"]) for entry in json.loads(listed.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{listed.parent} is no model of sentence-transformers: modules.json cannot be read") from None
    if foreign := [name for name in names if not name.startswith(PACKAGE)]:
        raise ValueError(f"the model runs code of its own: {foreign[0][:60]}")


if __name__ == "__main__":
    serve(similarities, sys.argv[1])
