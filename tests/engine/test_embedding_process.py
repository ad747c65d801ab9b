"""Tests that similarities are measured with sentence-transformers, in a process of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.judges import Reply
from harness.engine.embedding_process import check_modules
from harness.runner.judges.similarities import measure
from harness.scoring.findings import pair_key

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "dog", "sits", "runs", "home", "."]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a model of sentence-transformers with random weights, and return its folder."""
    pytest.importorskip("sentence_transformers", reason="needs the extra similar")
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("embedder")
    (folder / "vocab.txt").write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(shape).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    parts = Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[parts, Pooling(32)], device="cpu").save(str(folder / "made"))
    return str(folder / "made")


@pytest.mark.slow
def test_similarities_are_measured(model: str) -> None:
    """Equal texts have a similarity of 1, other texts a smaller one, and each is stored under the key of its pair."""
    pairs = [("the cat sits.", "the cat sits."), ("the cat sits.", "dog runs home"), ("the cat sits.", "")]
    found = dict(measure(model, pairs))
    values = [float(reply.text) for reply in found.values() if isinstance(reply, Reply)]
    assert values[0] == pytest.approx(1, abs=1e-5)
    assert all(-1 <= value < 0.999 for value in values[1:])
    assert [reply.key for reply in found.values() if isinstance(reply, Reply)] == [pair_key(pair) for pair in pairs]


@pytest.mark.slow
def test_a_missing_model_is_a_reason(tmp_path: Path) -> None:
    """If the model cannot be loaded, every pair has the reason."""
    pytest.importorskip("sentence_transformers", reason="needs the extra similar")
    (tmp_path / "empty").mkdir()
    found = dict(measure(str(tmp_path / "empty"), [("a", "b"), ("c", "d")]))
    assert all("cannot be used" in str(reason) for reason in found.values())
    assert len(found) == 2


@pytest.mark.parametrize("kind", ["os.system", "mine.Module", "sentence_transformersx.models.Pooling"])
def test_a_model_with_code_of_its_own_is_refused(tmp_path: Path, kind: str) -> None:
    """A model whose modules come from another package is refused, since these would be imported."""
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "type": kind}]), encoding="utf-8")
    with pytest.raises(ValueError, match="code of its own"):
        check_modules(tmp_path / "modules.json")
