"""Tests of the configuration and tokenizer files of a merged model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.cli import main
from harness.export.config_files import config_of, generation_config_of, plain_files, tokenizer_config_of
from harness.models.resolving import POCKET
from harness.storage.runs import RunStore


def base_of(folder: Path, ends: object, **settings: object) -> Path:
    """Write the pocket model's tokenizer into a folder, with these end tokens and settings of the tokenizer."""
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(POCKET / name, folder)
    given = json.loads((POCKET / "tokenizer_config.json").read_text(encoding="utf-8")) | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(given))
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 7}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends, "temperature": 0.6}))
    return folder


def test_end_tokens_are_those_of_the_evaluation(tmp_path: Path) -> None:
    """A merged model's generation_config.json has the tokenizer's end token in addition to those of the base model."""
    base = base_of(tmp_path, [7, 9])
    assert generation_config_of(base) == {"eos_token_id": [2, 7, 9], "temperature": 0.6}
    assert config_of(base, "float16", untied=False) == {"eos_token_id": 7, "dtype": "float16"}
    assert tokenizer_config_of(base)["eos_token"] == "</s>"


def test_a_merged_model_stops_at_the_closing_token_of_its_template(tmp_path: Path) -> None:
    """If only the chat template names the token that closes answers, the merged model's files name it as an end."""
    base = base_of(tmp_path, 3, eos_token="<pad>")
    template = (POCKET / "chat_template.jinja").read_text(encoding="utf-8")
    (base / "chat_template.jinja").write_text(template.replace("eos_token", "'</s>'"))
    assert generation_config_of(base)["eos_token_id"] == [2, 3]
    assert tokenizer_config_of(base)["eos_token"] == "</s>"


def test_tokenizer_template_and_licence_are_copied(tmp_path: Path) -> None:
    """Tokenizer, chat template and licence are copied from the base model, but no weights, pickle files or code."""
    for name in ("tokenizer.model", "LICENSE.txt", "tokenizer.bin", "tokenizer_code.py", "model.safetensors"):
        (tmp_path / name).touch()
    assert [path.name for path in plain_files(tmp_path)] == ["LICENSE.txt", "tokenizer.model"]
    assert {"chat_template.jinja", "tokenizer.json"} <= {path.name for path in plain_files(POCKET)}


@pytest.mark.parametrize(
    ("kind", "options"),
    [("adapter", ["--quant", "f16"]), ("adapter", ["--mode", "fp16-base"]), ("merged", ["--public"]),
     ("gguf", ["--repo", "me/mine"])],
)  # fmt: skip
def test_an_option_without_effect_is_refused(
    trained_run: RunStore, capsys: pytest.CaptureFixture[str], kind: str, options: list[str]
) -> None:
    """If an option has no effect with the chosen `--to`, the error names the targets that use the option."""
    name = trained_run.manifest().plan.variants[0].name
    assert main(["export", str(trained_run.root), name, "--to", kind, *options]) == 2
    assert f"{options[0]} changes nothing with --to {kind}. It is for --to " in capsys.readouterr().err
