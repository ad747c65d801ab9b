"""The base and many adapters answer in one mixed batch: each row sees the adapter it is meant for, or none.

Long prompts go first. A row that has ended makes room for the next, so that the batch stays full until nothing waits.
What a row answers is what it would have answered alone, up to rounding.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from harness.records import Answer, Decoding, DeviceKind, Prompt

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from harness.engine.cache import Seating

MOST_ROWS = 128
JOIN_TOKENS = 4096
"""Tokens of prompts that are read at once."""
_SPARE = 0.75
"""Of the memory that keys and values may take: a step's activations and logits need some, too."""
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


def attends_to_all(base: Base, prompts: Sequence[Prompt], decoding: Decoding) -> bool:
    """Whether every token may look at all before it, whatever is asked.

    How far a model looks back is reckoned in columns of the cache, and there a mixed batch's rows lie apart.
    """
    config = base.model.config.get_text_config()
    far = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    return far is None or _longest(base, prompts) + decoding.max_new_tokens <= far


def _longest(base: Base, prompts: Iterable[Prompt]) -> int:
    """Tokens of the longest prompt."""
    distinct = {prompt.messages: prompt for prompt in prompts}.values()
    return max((len(render(prompt.messages, base.tokenizer, ask=True)) for prompt in distinct), default=1)


def rows_in_flight(base: Base, speakers: Sequence[Speaker], decoding: Decoding, *, least: int) -> int:
    """How many rows to answer at once: on a GPU as many as its free memory holds keys and values of."""
    if base.machine.kind is DeviceKind.CPU:
        return least
    from harness.engine.fused.width import free_bytes

    config = base.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * size * base.model.dtype.itemsize
    longest = _longest(base, (prompt for speaker in speakers for prompt in speaker.prompts))
    adapters = sum(_bytes(speaker.adapter) for speaker in speakers if speaker.adapter)
    fitting = _SPARE * (free_bytes(base) - adapters) / (token * (longest + decoding.max_new_tokens))
    return max(least, min(MOST_ROWS, int(fitting)))


def _bytes(adapter: Adapter) -> int:
    return sum(half.nbytes for pair in adapter.weights.values() for half in pair)


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
    join_tokens: int = JOIN_TOKENS,
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
        for seat in _Flight(base, stack, decoding, rows, join_tokens).through(seats):
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
    width: int = 0
    """Columns of the cache that its prompt takes."""

    def idle(self, decoding: Decoding) -> _Seat:
        """One that nobody listens to; it draws from a generator of its own."""
        return replace(replace(self).begin(decoding), ended=True)

    def begin(self, decoding: Decoding) -> _Seat:
        self.tokens, self.logs, self.ended = [], [], False
        self.generator = generator_of(self.prompt.key) if decoding.temperature else None
        return self


class _Flight:
    """The rows in flight."""

    def __init__(self, base: Base, stack: Stack, decoding: Decoding, rows: int, join_tokens: int) -> None:
        self._base, self._stack, self._decoding = base, stack, decoding
        self._rows, self._join_tokens = rows, join_tokens
        self._ends = _ends(base)
        # On a CPU fewer than four rows would go through another matrix product than many and round differently.
        self._least = 4 if base.machine.kind is DeviceKind.CPU else 1
        self._seats: list[_Seat] = []
        self._cache: Cache | None = None
        self._seating: Seating
        self._mask: torch.Tensor
        """(rows, columns), what each may see."""
        self._last: torch.Tensor
        """(rows, 1), the token that each said last."""
        self._positions: torch.Tensor
        """(rows, 1), that token's place in its own text."""
        self._columns: torch.Tensor
        """(rows), its place in the cache, left of which there may be padding."""

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
                self._seats, self._cache, self._rows = [], None, self._rows // 2
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
            if not self._seats:
                self._open(waiting)
            count = max(1, min(room, self._join_tokens // len(waiting[0].ids)))
            ended = self._join([seat.begin(self._decoding) for seat in waiting[:count]])
            del waiting[:count]  # only now: what did not fit in memory still waits
            return ended
        if not waiting and 2 * len(flying) <= len(self._seats) > self._least:
            self._keep_flying()
        return self._step()

    # --- rows come and go -----------------------------------------------------------------------------------------

    def _open(self, waiting: Sequence[_Seat]) -> None:
        """Room for as many rows as will be in flight, and for as many tokens as the longest may come to."""
        import torch

        from harness.engine.cache import Seating, seated_cache

        device = self._base.device
        count = max(self._least, min(self._rows, len(waiting)))
        columns = max(len(seat.ids) for seat in waiting) + self._decoding.max_new_tokens
        self._seating = Seating(count, columns, device)
        self._cache = seated_cache(self._base.model.config.get_text_config().num_hidden_layers, self._seating)
        self._seats = [waiting[0].idle(self._decoding) for _ in range(count)]
        self._mask = torch.zeros(count, columns, dtype=torch.bool, device=device)
        self._mask[:, 0] = True  # a place that nobody has taken yet must see something, or its scores are no numbers
        self._last, self._positions = (torch.zeros(count, 1, dtype=torch.long, device=device) for _ in range(2))
        self._columns = torch.zeros(count, dtype=torch.long, device=device)

    def _join(self, seats: list[_Seat]) -> list[_Seat]:
        """Rows take the places of some that have ended, or that nobody has had yet."""
        import torch

        base, device = self._base, self._base.device
        rows = [*seats, *(seats[0].idle(self._decoding) for _ in range(self._least - len(seats)))]
        vacant = [number for number, seat in enumerate(self._seats) if seat.ended][: len(rows)]
        places, count = torch.tensor(vacant, device=device), len(vacant)
        width, pad = max(len(seat.ids) for seat in rows), base.tokenizer.pad_token_id
        pads = [width - len(seat.ids) for seat in rows]
        ids = torch.tensor([[pad] * before + seat.ids for before, seat in zip(pads, rows, strict=True)], device=device)
        mask = torch.arange(width, device=device) >= torch.tensor(pads, device=device)[:, None]
        self._stack.enter([PassRow(seat.slot, len(seat.ids)) for seat in rows])
        self._seating.join(places)
        scores = self._scores(ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))
        taken, ended = self._take(rows, scores)
        for place, seat in zip(vacant, rows, strict=False):
            self._seats[place] = seat
            seat.width = width
        self._mask[places] = torch.nn.functional.pad(mask[:count], (0, self._seating.columns - width))
        self._last[places], self._positions[places] = taken[:count], mask[:count].sum(dim=1, keepdim=True)
        self._columns[places] = width
        self._entered()
        return ended

    def _keep_flying(self) -> None:
        """Nobody waits any more: those that have ended need not be computed with the others."""
        import torch

        from harness.engine.cache import keep

        kept = [number for number, seat in enumerate(self._seats) if not seat.ended]
        kept += [number for number, seat in enumerate(self._seats) if seat.ended][: max(0, self._least - len(kept))]
        rows = torch.tensor(kept, device=self._base.device)
        keep(self._cache, rows)
        self._seating.keep(rows)
        self._mask, self._last = self._mask[rows], self._last[rows]
        self._positions, self._columns = self._positions[rows], self._columns[rows]
        self._seats = [self._seats[number] for number in kept]
        self._entered()

    def _entered(self) -> None:
        self._stack.enter([PassRow(seat.slot, 1) for seat in self._seats])

    # --- tokens ---------------------------------------------------------------------------------------------------

    def _step(self) -> list[_Seat]:
        reach = max(seat.width + len(seat.tokens) for seat in self._flying)
        self._mask.scatter_(1, self._columns[:, None], value=True)
        self._seating.step(self._columns, reach)
        scores = self._scores(self._last, self._mask[:, :reach], self._positions)
        self._last, ended = self._take(self._seats, scores)
        self._positions = self._positions + 1
        # Those that have ended stay where they are at last: nobody looks at what they say.
        self._columns = (self._columns + 1).clamp(max=self._seating.columns - 1)
        return ended

    def _scores(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        out = self._base.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
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
