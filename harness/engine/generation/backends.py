"""Backends that answer prompts: a model in PyTorch, or a GGUF file in llama.cpp.

Both get the same tokens, rendered by the tokenizer of the run, and decode greedily. Only `llama_cpp_chat` answers as
llama.cpp answers its users.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.core.answers import Answer, Likelihood
from harness.core.conversations import as_chat
from harness.core.errors import EngineError
from harness.core.job import Prompt
from harness.core.suite import Decoding, Message
from harness.core.units import DeviceKind
from harness.engine.adapters import attached
from harness.engine.generation.answers import answer, finish
from harness.engine.generation.log_probabilities import likelihood, texts_of
from harness.engine.loading import Base
from harness.engine.tokenization import IGNORED, Row, conversations_of, follow, render

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


class Backend(Protocol):
    """Answers prompts, and computes the logits of given tokens."""

    def answers(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        """Return one answer per prompt, decoded greedily."""
        ...

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Return the logits at every token, (tokens, vocabulary), in fp32 on the CPU."""
        ...


def _no_progress(done: int) -> None:
    """Report no progress, since there are few prompts."""


@dataclass(frozen=True)
class TorchBackend:
    """A PyTorch model: a base, with or without an adapter."""

    base: Base
    model: Any

    def answers(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        greedy = replace(decoding, temperature=0.0)
        size = 64 if self.base.machine.kind is DeviceKind.CPU else 16
        return answer(self.base, self.model, prompts, greedy, batch_size=size, progress=_no_progress)

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        import torch

        with torch.inference_mode():
            given = torch.tensor([list(ids)], device=self.base.device)
            found: torch.Tensor = self.model(input_ids=given, use_cache=False).logits[0].float().cpu()
        return found


@dataclass(frozen=True)
class BaseBackend(TorchBackend):
    """A PyTorch base that answers without the adapter that is attached to it."""

    def answers(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        with self.model.disable_adapter():
            return super().answers(prompts, decoding)


@contextlib.contextmanager
def base_and_adapter(base: Base, adapter: Path) -> Iterator[tuple[Backend, Backend]]:
    """Yield one backend for the base and one for the base with the adapter; both share one copy of the weights."""
    with attached(base, adapter) as model:
        yield BaseBackend(base, model), TorchBackend(base, model)


@dataclass(frozen=True)
class GgufBackend:
    """A GGUF file that `open_gguf` loaded into llama.cpp."""

    llama: Any
    tokenizer: PreTrainedTokenizerBase
    ends: frozenset[int]
    """Ids of the tokens that end an answer."""

    def answers(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Answer]:
        return [self._answer(prompt, decoding) for prompt in prompts]

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        import torch

        self._check_room(len(ids))
        self.llama.reset()
        self.llama.eval(list(ids))
        return torch.tensor(self.llama.scores[: len(ids)])

    def tokens_of(self, prompt: Prompt) -> list[int]:
        """Tokenize the prompt's text with the tokenizer in the GGUF file, as users of llama.cpp do."""
        text = conversations_of(self.tokenizer).asked_text(prompt.messages)
        return list(self.llama.tokenize(text.encode(), add_bos=False, special=True))

    def same_tokens(self, prompt: Prompt) -> bool:
        """Whether llama.cpp tokenizes the prompt as the run's tokenizer does."""
        return self.tokens_of(prompt) == render(prompt.messages, self.tokenizer, ask=True)

    def _answer(self, prompt: Prompt, decoding: Decoding) -> Answer:
        ids = render(prompt.messages, self.tokenizer, ask=True)
        self._check_room(len(ids) + decoding.max_new_tokens)
        made, log = self._generate(ids, decoding)
        text, tokens, truncated = finish(self.tokenizer, made, set(self.ends), decoding)
        known = {given: self._likelihood(follow(prompt.messages, given, self.tokenizer)) for given in texts_of(prompt)}
        choices = tuple(one for given in prompt.choices if (one := known[given]) is not None)
        return Answer(
            prompt.key,
            text,
            tokens,
            truncated,
            likelihood(sum(log[:tokens]), tokens),
            None if prompt.reference is None else known[prompt.reference],
            choices if len(choices) == len(prompt.choices) else (),
        )

    def _generate(self, ids: Sequence[int], decoding: Decoding) -> tuple[list[int], list[float]]:
        """Return the new tokens, up to an end token or the limit, and the log-probability of each."""
        import torch

        made: list[int] = []
        log: list[float] = []
        self.llama.reset()
        self.llama.eval(list(ids))
        while len(made) < decoding.max_new_tokens:
            last = torch.tensor(self.llama.scores[self.llama.n_tokens - 1])
            token = int(last.argmax())
            made.append(token)
            log.append(float(last.log_softmax(-1)[token]))
            _, _, unfinished = finish(self.tokenizer, made, set(self.ends), decoding)
            if not unfinished:
                break
            self.llama.eval([token])
        return made, log

    def _likelihood(self, row: Row) -> Likelihood | None:
        logs = self.logits(row.input_ids)[:-1].log_softmax(-1)
        given = [(at, label) for at, label in enumerate(row.labels[1:]) if label != IGNORED]
        return likelihood(sum(float(logs[at, label]) for at, label in given), len(given))

    def _check_room(self, tokens: int) -> None:
        if tokens > self.llama.n_ctx():
            message = f"prompt and answer take {tokens} tokens, and the model's context is {self.llama.n_ctx()}"
            raise EngineError(message, remedy="Shorten the prompt, or lower decoding.max_new_tokens in suite.yaml.")


@contextlib.contextmanager
def open_gguf(
    file: Path,
    tokenizer: PreTrainedTokenizerBase,
    ends: frozenset[int],
    threads: int = 0,
    lora: Path | None = None,
) -> Iterator[GgufBackend]:
    """Load a GGUF file into llama.cpp, with the adapter `lora` if one is given, and free it when the context ends.

    Raises:
        EngineError: llama.cpp cannot read the file.
    """
    from llama_cpp import Llama

    limit = getattr(tokenizer, "model_max_length", 4096)
    options = {"n_threads": threads or None, "n_threads_batch": threads or None, "verbose": False}
    try:
        llama = Llama(str(file), n_ctx=min(int(limit), 4096), logits_all=True, **options)
    except (ValueError, RuntimeError) as error:
        remedy = "Export it again."
        raise EngineError(f"llama.cpp cannot read {file}: {error}", remedy=remedy) from error
    try:
        if lora:
            _load_loras(llama, file, [lora])[0]()
        yield GgufBackend(llama, tokenizer, ends)
    finally:
        llama.close()


def _load_loras(llama: Any, file: Path, loras: Sequence[Path]) -> list[Callable[[], None]]:
    """Load adapters onto a model, and return for each a function that makes it the only one in use.

    They are freed with the model.

    Raises:
        EngineError: llama.cpp cannot read an adapter, or it belongs to another model.
    """
    import ctypes

    import llama_cpp

    # For each matrix over quantised weights, llama.cpp prints a warning about memory, and the binding shows it.
    logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL)

    def chosen(adapter: Any, path: Path) -> Callable[[], None]:
        adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)

        def use() -> None:
            llama.reset()
            if llama_cpp.llama_set_adapters_lora(llama.ctx, adapters, 1, (ctypes.c_float * 1)(1.0)):
                raise EngineError(f"llama.cpp cannot use {path}", remedy=_EXPORT_LORA)

        return use

    found = []
    for path in loras:
        adapter = llama_cpp.llama_adapter_lora_init(llama.model, str(path).encode())
        if not adapter:
            what = f"llama.cpp cannot load {path} onto {file}: it is damaged, or an adapter of another model"
            raise EngineError(what, remedy=_EXPORT_LORA)
        found.append(chosen(adapter, path))
    return found


_EXPORT_LORA = "Export both again: --to gguf --base-only, and --to gguf-lora."


def llama_cpp_chat(
    file: Path, decoding: Decoding, loras: Sequence[Path] = ()
) -> tuple[Callable[[Sequence[Message]], str], ...]:
    """Return functions that answer a conversation as llama.cpp answers its users.

    The first one answers with the file itself, and the others with each adapter of `loras` on it. They use the chat
    template and the tokenizer in the file, and the settings in `decoding`.

    Raises:
        EngineError: llama.cpp cannot read a file.
    """
    import llama_cpp
    from llama_cpp import Llama

    try:
        llama = Llama(str(file), n_ctx=0, verbose=False)
    except (ValueError, RuntimeError) as error:
        raise EngineError(f"llama.cpp cannot read {file}: {error}", remedy="Export it again.") from error
    stop = list(decoding.stop)

    def ask(use: Callable[[], None], messages: Sequence[Message]) -> str:
        use()
        chat: Any = as_chat(messages)
        reply: Any = llama.create_chat_completion(
            chat, temperature=decoding.temperature, max_tokens=decoding.max_new_tokens, stop=stop
        )
        return str(reply["choices"][0]["message"]["content"]).strip()

    def use_none() -> None:
        llama.reset()
        llama_cpp.llama_set_adapters_lora(llama.ctx, None, 0, None)

    return tuple(partial(ask, use) for use in (use_none, *_load_loras(llama, file, loras)))
