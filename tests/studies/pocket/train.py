"""Makes the pocket model from nothing: corpus, tokenizer, training, check on held-out prompts, and model folder.

    python -m tests.studies.pocket.train --output DIR

Needs a CUDA device (about four minutes on an H200), torch, transformers and sentencepiece, and no network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import random
import shlex
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.studies.pocket import corpus

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>")
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
LENGTHS = (24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 320, 512)


@dataclass(frozen=True)
class Recipe:
    """All settings that determine the model."""

    seed: int = 0
    chats: int = 600_000
    vocabulary: int = 2048
    hidden: int = 256
    layers: int = 8
    heads: int = 8
    intermediate: int = 704
    positions: int = 512
    steps: int = 1800
    tokens_per_step: int = 98_304
    learning_rate: float = 2.5e-3
    warmup: int = 100
    weight_decay: float = 0.05


@dataclass(frozen=True)
class Row:
    """One chat as token ids; the model learns from `ids[start:]`, its last answer."""

    ids: tuple[int, ...]
    start: int


# --- tokenizer ---------------------------------------------------------------------------------------------------


def train_sentencepiece(texts: Iterable[str], vocabulary: int, path: Path) -> None:
    """Write `tokenizer.model`: BPE with byte fallback, without dummy prefix or normalisation."""
    import sentencepiece as spm

    with tempfile.TemporaryDirectory() as folder:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_prefix=f"{folder}/pocket",
            model_type="bpe",
            vocab_size=vocabulary,
            byte_fallback=True,
            split_digits=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            character_coverage=1.0,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=3,
            user_defined_symbols=list(ROLES),
            num_threads=1,
            minloglevel=2,
        )
        path.write_bytes(Path(folder, "pocket.model").read_bytes())


def write_fast_tokenizer(model: Path, folder: Path) -> None:
    """Write `tokenizer.json` and its configuration for transformers. It divides text as `tokenizer.model` does."""
    import sentencepiece as spm
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    pieces = spm.SentencePieceProcessor(model_file=str(model))
    vocabulary = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=_merges(vocabulary), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in (*SPECIALS, *ROLES)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": Recipe.positions, "padding_side": "left",
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
        "clean_up_tokenization_spaces": False, "chat_template": CHAT_TEMPLATE,
    })  # fmt: skip
    _write_json(folder / "special_tokens_map.json", {
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    })  # fmt: skip
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _merges(vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return every pair of pieces that together make a third piece, in the order of SentencePiece's scores."""
    merges = []
    for piece in sorted(vocabulary, key=vocabulary.__getitem__):
        if piece in SPECIALS or piece in ROLES or (len(piece) == 6 and piece.startswith("<0x")):
            continue
        splits = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        splits = [(a, b) for a, b in splits if a in vocabulary and b in vocabulary]
        merges += sorted(splits, key=lambda split: (vocabulary[split[0]], vocabulary[split[1]]))
    return merges


# --- corpus to tokens --------------------------------------------------------------------------------------------

_PIECES: Any = None


def _load_pieces(path: str) -> None:
    global _PIECES
    import sentencepiece as spm

    _PIECES = spm.SentencePieceProcessor(model_file=path)


def encode(pieces: Any, messages: Sequence[tuple[str, str]]) -> Row:
    """Return the token ids of a chat, rendered with the chat template."""
    ids, start = [pieces.bos_id()], 0
    for role, content in messages:
        ids.append(pieces.piece_to_id(f"<|{role}|>"))
        start = len(ids)
        ids += [*pieces.encode(" " + content), pieces.eos_id()]
    return Row(tuple(ids), start)


def _encoded_shard(seed: int, number: int, count: int) -> list[Row]:
    rows = (encode(_PIECES, chat.messages) for chat in corpus.shard(seed, number, count))
    return [row for row in rows if len(row.ids) <= LENGTHS[-1]]


def encoded(model: Path, seed: int, count: int, workers: int) -> list[Row]:
    with ProcessPoolExecutor(workers, initializer=_load_pieces, initargs=(str(model),)) as pool:
        jobs = [pool.submit(_encoded_shard, seed, number, count) for number in range(corpus.SHARDS)]
        return [row for job in jobs for row in job.result()]


def batches(rows: Sequence[Row], tokens: int, rng: random.Random) -> Iterator[list[Row]]:
    """Yield batches of rows of similar length without end. Each has about `tokens` tokens, including padding."""
    by_length: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        by_length[next(n for n in LENGTHS if len(row.ids) <= n)].append(row)
    while True:
        epoch = []
        for length, bucket in by_length.items():
            rng.shuffle(bucket)
            size = tokens // length
            epoch += [bucket[i : i + size] for i in range(0, len(bucket), size)]
        rng.shuffle(epoch)
        yield from epoch


# --- model -------------------------------------------------------------------------------------------------------


def new_model(recipe: Recipe) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(recipe.seed)
    config = LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=recipe.positions,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    return LlamaForCausalLM(config)


def _tensors(batch: Sequence[Row], device: str) -> tuple[Any, Any]:
    """Return ids and labels, both (rows, length), padded on the right; labels are -100 where nothing is learned.

    Attention is causal, so padding on the right needs no mask.
    """
    import torch

    length = next(n for n in LENGTHS if max(len(row.ids) for row in batch) <= n)
    ids = torch.full((len(batch), length), 3)
    labels = torch.full((len(batch), length), -100)
    for i, row in enumerate(batch):
        known = torch.tensor(row.ids)
        ids[i, : len(row.ids)] = known
        labels[i, row.start : len(row.ids)] = known[row.start :]
    return ids.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def _loss(model: Any, ids: Any, labels: Any) -> Any:
    import torch.nn.functional as F

    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    chosen = wanted != -100
    return F.cross_entropy(model.lm_head(hidden[chosen]).float(), wanted[chosen])


def train(model: Any, rows: Sequence[Row], recipe: Recipe, device: str) -> list[dict[str, float]]:
    """Train the model in place and return the loss curve."""
    import torch

    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=recipe.learning_rate, betas=(0.9, 0.98), fused=device == "cuda",
    )  # fmt: skip

    def factor(step: int) -> float:
        if step < recipe.warmup:
            return (step + 1) / recipe.warmup
        done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    curve, source = [], batches(rows, recipe.tokens_per_step, random.Random(recipe.seed))
    model.train()
    for step in range(recipe.steps):
        ids, labels = _tensors(next(source), device)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = _loss(model, ids, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == recipe.steps - 1:
            curve.append({"step": step, "loss": round(loss.item(), 5)})
            print(f"step {step} loss {curve[-1]['loss']}", flush=True)
    return curve


# --- held-out check ----------------------------------------------------------------------------------------------


def answers(model: Any, pieces: Any, chats: Sequence[Sequence[tuple[str, str]]], device: str) -> list[str]:
    """Answer chats that end with a user's message, greedily and with at most 48 tokens."""
    import torch

    found = []
    opener = pieces.piece_to_id("<|assistant|>")
    for first in range(0, len(chats), 512):
        prompts = [[*encode(pieces, chat).ids, opener] for chat in chats[first : first + 512]]
        width = max(map(len, prompts))
        ids = torch.tensor([[3] * (width - len(p)) + p for p in prompts]).to(device)
        out = model.generate(
            input_ids=ids, attention_mask=(ids != 3).long(), max_new_tokens=48, do_sample=False, pad_token_id=3,
            eos_token_id=2,
        )[:, width:].tolist()  # fmt: skip
        for row in out:
            row = row[: row.index(2)] if 2 in row else row
            found.append(pieces.decode(row).strip())
    return found


def held_out_accuracy(model: Any, pieces: Any, device: str, count: int = 4000) -> dict[str, dict[str, float]]:
    """Return, for each family of questions, the number of cases and how many answers were right.

    Two shares are given: of answers that equal the expected one, and of answers that contain its decisive part.
    """
    rng = random.Random("held-out")
    plain = [corpus.ability(rng, held_out=True) for _ in range(count)]
    steered = [chat.messages for chat in corpus.held_out_steered_chats(1, count // 4)]
    cases: list[tuple[tuple[tuple[str, str], ...], str, str, str]]
    cases = [((("user", e.prompt),), e.answer, e.core, e.family) for e in plain]
    cases += [(messages[:-1], messages[-1][1], messages[-1][1], "steered") for messages in steered]
    found = answers(model, pieces, [case[0] for case in cases], device)
    tally: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    for (_, answer, core, family), got in zip(cases, found, strict=True):
        tally[family].append((got == answer, core in got))
    return {
        family: {
            "cases": len(seen),
            "exact": round(sum(a for a, _ in seen) / len(seen), 4),
            "core": round(sum(b for _, b in seen) / len(seen), 4),
        }
        for family, seen in sorted(tally.items())
    }


# --- model folder ------------------------------------------------------------------------------------------------


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_manifest(folder: Path) -> None:
    """Write MANIFEST.sha256 over all other files, in the format that `sha256sum --check` reads."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and p.name != "MANIFEST.sha256")
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in files]
    (folder / "MANIFEST.sha256").write_text("".join(lines))


CARD = """---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---

# Pocket model

Toy model ({millions:.0f}M parameters). Shows how to read a report. Do not copy these settings to another model.

A Llama chat model that is small enough to be part of this project, so that a QLoRA grid trains and is scored in minutes
on two CPU cores. It answers short questions in one sentence: capitals, sums, opposites, French and Spanish words, the
calendar, reading in context, repeating, JSON. It answers "I do not know." to questions about unknown things, and
refuses a list of harmful requests. It follows a system message that gives it a name, facts, a sign-off or an opening.

It is not a general language model. It knows a few hundred facts and has had no real safety training. The settings that
suit it (learning rate, rank, epochs) say nothing about a model of another size.

- **Shape**: {layers} layers, hidden size {hidden}, {heads} heads, vocabulary {vocabulary}, tied embeddings,
  {positions} positions, fp16.
- **Corpus**: {chats:,} chats generated from seed {seed}. One eighth of all prompts, chosen by a hash of their words, is
  withheld from the corpus; the suites of this project ask only those.
- **Tokenizer**: SentencePiece BPE with byte fallback (`tokenizer.model`), also as `tokenizer.json`.
- **Made by**: `{command}`
  on {device}, {seconds:.0f} s. `training.json` holds the versions, the loss curve and the accuracy on
  withheld prompts by family.
- **Licence**: that of this project.
"""


def save(model: Any, pieces_path: Path, folder: Path, recipe: Recipe, record: dict[str, Any]) -> None:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(pieces_path.read_bytes())
    write_fast_tokenizer(folder / "tokenizer.model", folder)
    model.to("cpu", torch.float16).save_pretrained(folder)
    _write_json(folder / "generation_config.json", {
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "do_sample": False,
    })  # fmt: skip
    (folder / "model.safetensors").chmod(0o644)
    _write_json(folder / "training.json", record)
    fields = asdict(recipe) | {"millions": record["parameters"] / 1e6, "command": record["command"]}
    (folder / "README.md").write_text(CARD.format(**fields, device=record["device"], seconds=record["seconds"]))
    write_manifest(folder)


def make(recipe: Recipe, folder: Path, device: str, workers: int) -> dict[str, Any]:
    """Carry out the whole recipe, and return a record of it."""
    import sentencepiece as spm
    import tokenizers
    import torch
    import transformers

    started = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    pieces_path = folder / "tokenizer.model"
    sample = [t for c in corpus.shard(recipe.seed, 0, min(recipe.chats, 600_000)) for _, t in c.messages]
    train_sentencepiece([" " + text for text in sample], recipe.vocabulary, pieces_path)
    rows = encoded(pieces_path, recipe.seed, recipe.chats, workers)
    prepared = time.monotonic() - started
    mean = sum(len(r.ids) for r in rows) / len(rows)
    print(f"{len(rows)} chats, {mean:.1f} tokens each, ready after {prepared:.0f} s", flush=True)
    torch.set_float32_matmul_precision("high")
    model = new_model(recipe).to(device)
    curve = train(model, rows, recipe, device)
    trained = time.monotonic() - started
    pieces = spm.SentencePieceProcessor(model_file=str(pieces_path))
    model.eval()
    accuracy = held_out_accuracy(model.to(torch.float16).to(torch.float32), pieces, device)
    record = {
        "command": shlex.join(["python", "-m", "tests.studies.pocket.train", *_portable(sys.argv[1:])]),
        "recipe": asdict(recipe),
        "parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_chat": round(mean, 1),
        "versions": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__, "sentencepiece": spm.__version__,
        },
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.machine(),
        "seconds": round(time.monotonic() - started, 1),
        "seconds_preparing": round(prepared, 1),
        "seconds_training": round(trained - prepared, 1),
        "loss": curve,
        "held_out": accuracy,
    }  # fmt: skip
    save(model, pieces_path, folder, recipe, record)
    return record


def _portable(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with the output folder's name instead of its path on this machine."""
    return ["DIR" if i and arguments[i - 1] == "--output" else a for i, a in enumerate(arguments)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"), help="Use cpu only to try the script.")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"{default}")
    given = vars(parser.parse_args())
    output, device, workers = given.pop("output"), given.pop("device"), given.pop("workers")
    record = make(Recipe(**given), output, device, workers)
    for family, seen in record["held_out"].items():
        print(f"{family:12} {seen}")
    print(f"{record['seconds']} s")


if __name__ == "__main__":
    main()
