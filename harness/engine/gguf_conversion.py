"""`python -m harness.engine.gguf_conversion FILE FOLDER`: write the model of a GGUF file into a folder.

The process reads the keyword arguments of `convert` from its standard input, as a JSON object. If the file cannot be
converted, it prints the error as a JSON object with `message` and `remedy`, and its exit code is 2.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import HarnessError, ModelError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_OTHER_FILE = "Name the model that it was made from: its folder with .safetensors files, or its name on the Hub."

_SPACE = "\u2581"
"""How SentencePiece writes a space."""


def main(arguments: Sequence[str]) -> int:
    """Convert the GGUF file `arguments[0]` to a model in the existing folder `arguments[1]`; see the module."""
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to stdout
    file, folder = arguments
    try:
        convert(Path(file), Path(folder), **json.load(sys.stdin))
    except HarnessError as error:
        print(json.dumps({"message": error.message, "remedy": error.remedy}), file=messages, flush=True)
        return 2
    return 0


def convert(
    file: Path,
    folder: Path,
    *,
    dtype: str,
    weights: int,
    special_tokens: Mapping[str, int],
    end_tokens: Sequence[int],
    chat_template: str,
    space_prefix: bool,
    rope_scaling: Mapping[str, Any],
) -> None:
    """Write config, tokenizer and weights in `dtype` into `folder`, as `save_pretrained` does.

    transformers dequantises the weights. What it does not read from the file in every version is given by the other
    arguments, which come from the file's header.

    Args:
        file: the GGUF file.
        folder: an existing, empty folder.
        dtype: the type of the weights in the folder, such as float16.
        weights: the number of weights in the file.
        special_tokens: the ids of special tokens, by their names in transformers, such as `eos_token`.
        end_tokens: the ids of the tokens that end an answer.
        chat_template: the file's chat template.
        space_prefix: whether a SentencePiece tokenizer puts a space before a text.
        rope_scaling: entries to add to the configuration's `rope_parameters`.

    Raises:
        ModelError: transformers does not know the architecture, or does not read all weights of the file.
    """
    import torch

    # transformers would also read the files beside the GGUF file, such as a tokenizer's or an adapter's.
    with tempfile.TemporaryDirectory() as alone:
        (Path(alone) / "model.gguf").symlink_to(file.resolve())
        model, tokenizer = _read(file, alone, getattr(torch, dtype))
    _check_weights(file, model, weights)
    for name, token in special_tokens.items():
        setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(token))
        setattr(model.config, f"{name}_id", token)
    if rope_scaling:
        model.config.rope_parameters = {**model.config.rope_parameters, **rope_scaling}
    model.generation_config.eos_token_id = list(end_tokens)
    tokenizer.chat_template = chat_template
    if not space_prefix:
        _remove_space_prefix(tokenizer.backend_tokenizer)
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


def _read(file: Path, folder: str, dtype: torch.dtype) -> tuple[PreTrainedModel, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            folder,
            gguf_file="model.gguf",
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
            **_dequantised(),
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file="model.gguf", local_files_only=True)
    except ImportError as error:
        remedy = "Install it into the same environment: pip install 'gguf>=0.17.1'"
        raise ModelError(f"GGUF files are read with the Python package gguf: {error}", remedy=remedy) from error
    except (ValueError, KeyError, IndexError, TypeError, NotImplementedError, OSError, RuntimeError) as error:
        why = next(iter(str(error).splitlines()), "")
        raise ModelError(
            f"transformers cannot read {file}: {type(error).__name__} {why}", remedy=_OTHER_FILE
        ) from error
    if missing := loaded["missing_keys"]:
        raise ModelError(f"{file} lacks {len(missing)} weights, among them {min(missing)}", remedy=_OTHER_FILE)
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model, tokenizer


def _dequantised() -> dict[str, Any]:
    """Return the argument with which newer versions of transformers dequantise the weights, as older ones always do."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _check_weights(file: Path, model: PreTrainedModel, weights: int) -> None:
    """Check that the model has all weights of the file, since transformers ignores tensors that it does not know."""
    import torch

    parameters = dict(model.named_parameters())
    read = sum(parameter.numel() for parameter in parameters.values())
    if read != weights:
        what = f"transformers reads {read:,} weights of {file}, which has {weights:,}: it would be another model"
        raise ModelError(what, remedy=_OTHER_FILE)
    infinite = [name for name, parameter in parameters.items() if not torch.isfinite(parameter).all()]
    if infinite:
        what = f"{file}: {infinite[0]} has weights that {str(model.dtype).removeprefix('torch.')} cannot hold"
        raise ModelError(what, remedy=_OTHER_FILE)


def _remove_space_prefix(tokenizer: Any) -> None:
    """Let a SentencePiece tokenizer (of the package `tokenizers`) put no space before a text, if it does."""
    from tokenizers import decoders, normalizers

    if not tokenizer.encode("a", add_special_tokens=False).tokens[0].startswith(_SPACE):
        return
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.Replace(" ", _SPACE), None
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
