"""The base and many adapters answer in one mixed batch: each row sees the adapter it is meant for, or none.

Long prompts go first. A row that has ended makes room for the next, so that the batch stays full until nothing waits.
What a row answers is what it would have answered alone, up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.engine.adapters import attached
from harness.engine.answers import finish, given_answer, stopped
from harness.engine.base import Base, opened
from harness.engine.drawing import choose, generator_of
from harness.engine.fused.stack import Adapter, PassRow, Stack
from harness.engine.likelihood import evaluate_all
from harness.engine.rows import Row, render
from harness.records import Answer, Decoding, Prompt

if TYPE_CHECKING:
    import torch
    from transformers import DynamicCache

MOST_ROWS = 128
_TRIM = 32
"""Tokens that no row sees any more before they are cut off."""
BASE = -1
"""The slot of rows that see no adapter."""


@dataclass(frozen=True)
class Speaker:
    """A model that answers prompts: the base, or the base with an adapter."""

    name: str
    adapter: Adapter | None
    prompts: tuple[Prompt, ...]


def read_adapter(base: Base, folder: Path) -> Adapter | None:
    """A saved adapter in main memory, as whole as `attached` holds it to be; None for one that is more than plain LoRA.

    Raises:
        EngineError: its tensors are not those that its configuration asks for on this base.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    weights, scaling = {}, {}
    with attached(base, folder) as model:
        config = model.peft_config["default"]
        for name, module in base.model.named_modules():
            if isinstance(module, BaseTunerLayer) and not isinstance(module, LoraLayer):
                return None
            if isinstance(module, LoraLayer):
                if module.lora_variant or module.lora_bias.get("default") or "default" not in module.lora_A:
                    return None
                halves = (module.lora_A["default"].weight, module.lora_B["default"].weight)
                weights[name] = (halves[0].detach().to("cpu", copy=True), halves[1].detach().to("cpu", copy=True))
                scaling[name] = module.scaling["default"]
        plain = config.bias == "none" and not config.modules_to_save
    return Adapter(weights, scaling) if plain and weights else None


def rows_in_flight(base: Base, speakers: Sequence[Speaker], decoding: Decoding, *, least: int) -> int:
    """How many rows to answer at once: on a GPU as many as half of the free memory holds keys and values of."""
    if base.machine.kind == "cpu":
        return least
    from harness.engine.fused.width import free_bytes

    config = base.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * size * base.model.dtype.itemsize
    prompts = {prompt.messages: prompt for speaker in speakers for prompt in speaker.prompts}.values()
    longest = max((len(render(p.messages, base.tokenizer, ask=True)) for p in prompts), default=1)
    fitting = free_bytes(base) / 2 / (token * (longest + decoding.max_new_tokens))
    return max(least, min(MOST_ROWS, int(fitting)))


@contextlib.contextmanager
def _voices(base: Base, speakers: Sequence[Speaker]) -> Iterator[tuple[Stack, list[int]]]:
    """The adapters side by side on the base, and each speaker's slot."""
    adapters = [speaker.adapter for speaker in speakers if speaker.adapter is not None]
    numbers = iter(range(len(adapters)))
    stack = Stack(base.model, adapters)
    try:
        yield stack, [BASE if speaker.adapter is None else next(numbers) for speaker in speakers]
    finally:
        stack.remove()


def answer_mixed(
    base: Base,
    speakers: Sequence[Speaker],
    decoding: Decoding,
    *,
    rows: int = 64,
    progress: Callable[[str, int], None],
) -> Iterator[tuple[str, list[Answer]]]:
    """Each speaker's answers in the order of its prompts, as soon as it has given all of them.

    At most `rows` are in flight; where that does not fit the GPU's memory, half as many.
    """
    with opened(base), _voices(base, speakers) as (stack, slots):
        seats = [
            _Seat(speaker.name, slot, prompt, render(prompt.messages, base.tokenizer, ask=True))
            for speaker, slot in zip(speakers, slots, strict=True)
            for prompt in {prompt.key: prompt for prompt in speaker.prompts}.values()
        ]
        more = _evaluated(base, stack, seats, rows)
        left = {speaker.name: sum(seat.speaker == speaker.name for seat in seats) for speaker in speakers}
        done: dict[str, dict[str, Answer]] = {speaker.name: {} for speaker in speakers}
        wanted = {speaker.name: speaker.prompts for speaker in speakers}
        for name in [name for name, count in left.items() if not count]:
            yield name, []
        for seat in _Flight(base, stack, decoding, rows).through(seats):
            answers = done[seat.speaker]
            own = finish(base.tokenizer, seat.tokens, _ends(base), decoding)
            likely = more[seat.speaker, seat.prompt.key]
            made = given_answer(seat.prompt.key, own, seat.logs)
            answers[seat.prompt.key] = replace(made, reference=likely.reference, choices=likely.choices)
            progress(seat.speaker, len(answers))
            if len(answers) == left[seat.speaker]:
                yield seat.speaker, [answers[prompt.key] for prompt in wanted[seat.speaker]]


def _ends(base: Base) -> set[int]:
    return set(base.model.generation_config.eos_token_id)


def _evaluated(base: Base, stack: Stack, seats: Sequence[_Seat], rows: int) -> dict[tuple[str, str], Any]:
    """What each speaker makes of its prompts' references and choices."""

    def enter(batch: Sequence[tuple[int, Row]]) -> None:
        stack.enter([PassRow(seats[number].slot, len(row.input_ids)) for number, row in batch])

    found = evaluate_all(base, base.model, [seat.prompt for seat in seats], batch_size=rows, enter=enter)
    return {(seat.speaker, seat.prompt.key): one for seat, one in zip(seats, found, strict=True)}


@dataclass
class _Seat:
    """A row: a prompt put to one speaker, and what it has said so far."""

    speaker: str
    slot: int
    prompt: Prompt
    ids: list[int]
    tokens: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    generator: Any = None
    ended: bool = False

    def begin(self, decoding: Decoding) -> _Seat:
        self.tokens, self.logs, self.ended = [], [], False
        self.generator = generator_of(self.prompt.key) if decoding.temperature else None
        return self


class _Flight:
    """The rows in flight: their cache, what of it each may see, and the token that each said last."""

    def __init__(self, base: Base, stack: Stack, decoding: Decoding, rows: int) -> None:
        self._base, self._stack, self._decoding, self._rows = base, stack, decoding, rows
        self._ends = _ends(base)
        # On a CPU fewer than four rows would go through another matrix product than many and round differently.
        self._least = 4 if base.machine.kind == "cpu" else 1
        self._seats: list[_Seat] = []
        self._cache: DynamicCache
        self._mask: torch.Tensor
        self._last: torch.Tensor
        self._places: torch.Tensor

    def through(self, seats: Sequence[_Seat]) -> Iterator[_Seat]:
        """Every seat when it has ended. One that does not fit in memory is begun again among fewer.

        Raises:
            torch.OutOfMemoryError: a row does not fit by itself.
        """
        import torch

        waiting = sorted(seats, key=lambda seat: -len(seat.ids))
        while waiting or self._flying:
            try:
                with torch.inference_mode():
                    ended = self._advance(waiting)
            except torch.OutOfMemoryError:
                if self._rows == 1:
                    raise
                waiting = sorted([*self._flying, *waiting], key=lambda seat: -len(seat.ids))
                self._seats, self._rows = [], self._rows // 2
                torch.cuda.empty_cache()
                continue
            yield from ended

    @property
    def _flying(self) -> list[_Seat]:
        return [seat for seat in self._seats if not seat.ended]

    def _advance(self, waiting: list[_Seat]) -> list[_Seat]:
        """One token for all, or the first token of rows that join."""
        flying = self._flying
        room = self._rows - len(flying)
        if waiting and (not flying or 4 * room >= self._rows):
            ended = self._join([seat.begin(self._decoding) for seat in waiting[:room]])
            del waiting[:room]  # only now: what did not fit in memory still waits
            return ended
        if 2 * len(flying) <= len(self._seats) > self._least:
            self._keep_flying()
        return self._step()

    # --- rows come and go -----------------------------------------------------------------------------------------

    def _keep_flying(self) -> None:
        import torch

        from harness.engine.cache import select

        kept = [number for number, seat in enumerate(self._seats) if not seat.ended]
        if not kept:
            self._seats = []
            return
        kept += [number for number, seat in enumerate(self._seats) if seat.ended][: max(0, self._least - len(kept))]
        rows = torch.tensor(kept, device=self._base.device)
        mask = self._mask[rows]
        start = int(mask.any(dim=0).int().argmax())
        select(self._cache, rows, start)
        self._mask, self._last, self._places = mask[:, start:], self._last[rows], self._places[rows]
        self._seats = [self._seats[number] for number in kept]
        self._entered()

    def _join(self, seats: list[_Seat]) -> list[_Seat]:
        import torch

        from harness.engine.cache import join, roomy_cache

        base, device = self._base, self._base.device
        ballast = [replace(seats[0], ended=True)] * (self._least - len(seats))
        rows = [*seats, *ballast]
        width, pad = max(len(seat.ids) for seat in rows), base.tokenizer.pad_token_id
        pads = [width - len(seat.ids) for seat in rows]
        ids = [[pad] * count + seat.ids for count, seat in zip(pads, rows, strict=True)]
        mask = torch.tensor([[0] * count + [1] * (width - count) for count in pads], device=device)
        cache = roomy_cache(base.model.config.get_text_config().num_hidden_layers)
        self._stack.enter([PassRow(seat.slot, len(seat.ids)) for seat in rows])
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        scores = self._scores(torch.tensor(ids, device=device), mask, places, cache)
        vacant = [number for number, seat in enumerate(self._seats) if seat.ended][: len(seats)]
        if len(vacant) == len(seats) and width <= self._mask.shape[1]:
            return self._sit_down(seats, vacant, cache, mask, scores)
        self._keep_flying()
        if self._seats:
            join(self._cache, cache)
            both = max(self._mask.shape[1], width)
            filled = [torch.nn.functional.pad(one, (both - one.shape[1], 0)) for one in (self._mask, mask)]
            self._mask = torch.cat(filled)
            last, self._places = self._last, torch.cat([self._places, places[:, -1:]])
        else:
            self._cache, self._mask, last, self._places = cache, mask, mask[:0, :1], places[:, -1:]
        taken, ended = self._take(rows, scores)
        self._last = torch.cat([last, taken])
        self._seats = [*self._seats, *rows]
        self._entered()
        return ended

    def _sit_down(
        self, seats: list[_Seat], vacant: list[int], cache: DynamicCache, mask: torch.Tensor, scores: torch.Tensor
    ) -> list[_Seat]:
        """Take the places of rows that have ended: nothing of the others is moved."""
        import torch

        from harness.engine.cache import replace_rows

        places, count = torch.tensor(vacant, device=self._base.device), len(seats)
        replace_rows(self._cache, places, cache)
        self._mask[places] = torch.nn.functional.pad(mask[:count], (self._mask.shape[1] - mask.shape[1], 0))
        self._places[places] = mask[:count].sum(dim=1, keepdim=True) - 1
        taken, ended = self._take(seats, scores[:count])
        self._last[places] = taken
        for place, seat in zip(vacant, seats, strict=True):
            self._seats[place] = seat
        if int(self._mask.any(dim=0).int().argmax()) >= _TRIM:
            self._keep_flying()
        self._entered()
        return ended

    def _entered(self) -> None:
        self._stack.enter([PassRow(seat.slot, 1) for seat in self._seats])

    # --- tokens ---------------------------------------------------------------------------------------------------

    def _step(self) -> list[_Seat]:
        import torch

        self._mask = torch.cat([self._mask, torch.ones_like(self._last)], dim=1)
        self._places = self._places + 1
        scores = self._scores(self._last, self._mask, self._places, self._cache)
        self._last, ended = self._take(self._seats, scores)
        return ended

    def _scores(self, ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor, cache: Any) -> torch.Tensor:
        out = self._base.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=places,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        scores: torch.Tensor = out.logits[:, -1].float()
        return scores

    def _take(self, rows: Sequence[_Seat], scores: torch.Tensor) -> tuple[torch.Tensor, list[_Seat]]:
        """The next token of every row, (rows, 1), and the seats that end with it."""
        taken, logs = choose(scores, self._decoding.temperature, [seat.generator for seat in rows])
        ended = []
        for seat, token, log in zip(rows, taken.tolist(), logs.tolist(), strict=True):
            if not seat.ended:
                seat.tokens.append(token)
                seat.logs.append(log)
                seat.ended = self._is_last(seat)
                if seat.ended:
                    ended.append(seat)
        return taken[:, None], ended

    def _is_last(self, seat: _Seat) -> bool:
        full = len(seat.tokens) >= self._decoding.max_new_tokens
        if full or seat.tokens[-1] in self._ends:
            return True
        return stopped(self._base.tokenizer, seat.tokens, self._decoding.stop) is not None
