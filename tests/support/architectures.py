"""Tiny random models of the architectures that users train, with tokenizers and chat templates like theirs.

The tokenizers have one token per character or byte besides their special tokens. The chat templates were written for
the tests and produce the formats of the published models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.core.model import ModelRef
from harness.models.resolving import resolve

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 1024,
}  # fmt: skip
_INST = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% elif m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}{{ raise_exception('roles must be user and assistant') }}{% endif %}{% endfor %}"
)
_LLAMA_2 = (
    "{% set system = messages[0].content if messages[0].role == 'system' else none %}"
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' }}"
    "{% if loop.first and system %}{{ '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' }}{% endif %}"
    "{{ m.content + ' [/INST]' }}{% else %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
_LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + "
    "m.content | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
_GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' + m.content | trim + "
    "'<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
_CHATML = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_QWEN_3 = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
_PHI_3 = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
_GPT_2 = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + (eos_token if m.role == 'assistant' else '\\n') }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)
_GPT_OSS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + ('<|return|>' if loop.last else '<|end|>') }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """An architecture with its configuration, tokenizer and chat template."""

    kind: str
    """`model_type` in config.json."""
    template: str
    ends: tuple[str, ...]
    """The tokens that end an answer. The first is the tokenizer's end token."""
    special: tuple[str, ...] = ()
    """Further special tokens."""
    bos: str | None = None
    pad: str | None = None
    sentencepiece: bool = False
    """Whether the tokenizer is like SentencePiece (characters, else bytes); if not, it has byte-level tokens."""
    options: dict[str, Any] = field(default_factory=dict)


_LLAMA_TOKENS: dict[str, Any] = {"ends": ("</s>",), "bos": "<s>", "sentencepiece": True}
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FAMILIES = {
    "Llama 2": Family("llama", _LLAMA_2, **_LLAMA_TOKENS, options={"num_key_value_heads": 4}),
    "Llama 3": Family(
        "llama", _LLAMA_3, ("<|eot_id|>", "<|end_of_text|>"), ("<|start_header_id|>", "<|end_header_id|>"),
        bos="<|begin_of_text|>",
        options={"rope_parameters": {
            "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 256,
        }},
    ),
    "Mistral": Family("mistral", _INST, **_LLAMA_TOKENS, options={"sliding_window": 4096}),
    "Gemma 2": Family(
        "gemma2", _GEMMA, ("<eos>", "<end_of_turn>"), ("<start_of_turn>",), bos="<bos>", pad="<pad>",
        sentencepiece=True, options={"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64},
    ),
    "Gemma 3": Family(
        "gemma3_text", _GEMMA, ("<eos>", "<end_of_turn>"), ("<start_of_turn>",), bos="<bos>", pad="<pad>",
        sentencepiece=True, options={"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64},
    ),
    "Qwen 2.5": Family(
        "qwen2", _CHATML, ("<|im_end|>", "<|endoftext|>"), ("<|im_start|>",), pad="<|endoftext|>",
        options={"tie_word_embeddings": True},
    ),
    "Qwen 3": Family(
        "qwen3", _QWEN_3, ("<|im_end|>", "<|endoftext|>"), ("<|im_start|>", "<think>", "</think>"),
        pad="<|endoftext|>", options={"head_dim": 16},
    ),
    "Phi-3": Family(
        "phi3", _PHI_3, ("<|endoftext|>", "<|end|>"), ("<|user|>", "<|assistant|>", "<|system|>"), bos="<s>",
        pad="<|endoftext|>", sentencepiece=True,
    ),
    "GPT-2": Family("gpt2", _GPT_2, ("<|endoftext|>",), bos="<|endoftext|>", options={
        "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024,
    }),
    "Mixtral": Family("mixtral", _INST, **_LLAMA_TOKENS, options=_EXPERTS),
    "gpt-oss": Family(
        "gpt_oss", _GPT_OSS, ("<|return|>", "<|endoftext|>"), ("<|start|>", "<|end|>", "<|message|>", "<|channel|>"),
        pad="<|endoftext|>", options=_EXPERTS | {"head_dim": 16, "sliding_window": 64},
    ),
}  # fmt: skip


def made(name: str, folder: Path) -> ModelRef:
    """Save a random model of a family, and return it. Its tokenizer and template are like those of the family."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    family = FAMILIES[name]
    tokenizer = _tokenizer(family)
    ends = tokenizer.convert_tokens_to_ids(list(family.ends))
    torch.manual_seed(list(FAMILIES).index(name))
    own = {} if family.kind == "gpt2" else SIZES
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": ends[0], "pad_token_id": tokenizer.pad_token_id}
    vocabulary = -(-len(tokenizer) // 64) * 64  # published models round up, too
    config = AutoConfig.for_model(family.kind, **own | family.options | tokens | {"vocab_size": vocabulary})
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            weight.mul_(3.0 if weight.dim() > 1 and "norm" not in weight_name else 1.0)  # so that logits differ
    model.generation_config = GenerationConfig(eos_token_id=ends)
    model.to(torch.float16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return resolve(str(folder))


def _tokenizer(family: Family) -> Any:
    from transformers import PreTrainedTokenizerFast

    special = list(dict.fromkeys(filter(None, ("<unk>", family.bos, *family.ends, *family.special, family.pad))))
    backend = _characters(special) if family.sentencepiece else _bytes(special)
    backend.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=family.bos,
        eos_token=family.ends[0],
        unk_token="<unk>" if family.sentencepiece else None,
        pad_token=family.pad,
        chat_template=family.template,
    )


def _characters(special: Sequence[str]) -> Any:
    """Return a tokenizer of ASCII characters, with bytes for all others, and with `▁` for a space."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *(chr(code) for code in range(33, 127))]
    model = models.BPE(_numbered([*special, *bytes_, *letters]), [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _bytes(special: Sequence[str]) -> Any:
    """Return a tokenizer with one token per byte, as the alphabet of GPT-2 writes bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    tokenizer = Tokenizer(models.BPE(_numbered([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]), []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def config_of(ref: ModelRef) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(ref.path) / "config.json").read_text(encoding="utf-8"))
    return found
