"""Continuous batching: the base and many adapters answer in one batch, each row with its own adapter or none.

Long prompts start first. When a row ends, a waiting prompt takes its slot, so the batch stays full until no prompt
is left. A prompt is read together with its reference, which also gives the first tokens of many answers (see
`drafts`). In full precision, a prompt gets the same text in every batch. Its log-probabilities are bit-identical only
in batches of the same rows: on some processors the rounding of a matrix product depends on its number of rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, groupby, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.answers import Answer, Likelihood
from harness.core.job import Prompt
from harness.core.suite import Decoding
from harness.core.units import DeviceKind
from harness.engine.adapters import attached
from harness.engine.cuda_graphs import Capture, CudaGraphs, cuda_graph
from harness.engine.generation.answers import answer_of, finish, stopped
from harness.engine.generation.drafts import agreed, draft_likelihoods, draft_of
from harness.engine.generation.log_probabilities import Evaluated, evaluate_all, texts_of
from harness.engine.generation.sampling import choose, generator_of
from harness.engine.loading import Base, dequantised
from harness.engine.pointwise import fused_pointwise
from harness.engine.tokenization import Row, render
from harness.engine.trainers.fused.layout import PassRow
from harness.engine.trainers.fused.stack import Adapter, Stack

if TYPE_CHECKING:
    import torch
    from transformers import Cache

    from harness.engine.generation.kv_cache import Slots
    from harness.engine.generation.masked_adapters import MaskedAdapters

MOST_ROWS = 128
"""Largest number of rows in a batch on a GPU."""
JOIN_TOKENS = 4096
"""Largest number of prompt tokens in one forward pass when rows join."""
_USABLE = 0.75
"""Share of free memory for keys and values; the rest is for the activations and logits of a step."""
_SCORED_ROWS = 8
"""Rows that join whose scores are computed together in fp32; more would take much memory with a large vocabulary."""
_REACH = 64
"""With CUDA graphs, a step reads a multiple of this number of columns, so that few graphs are needed."""
BASE = -1
"""The adapter position of rows without an adapter."""


@dataclass(frozen=True)
class Request:
    """The prompts for one model: the base, or the base with an adapter."""

    name: str
    adapter: Adapter | None
    prompts: tuple[Prompt, ...]


def read_adapter(base: Base, folder: Path) -> Adapter | None:
    """Read a saved adapter into main memory, with the checks of `attached`; None if it is not plain LoRA.

    Raises:
        EngineError: the adapter's tensors do not match its configuration on this base.
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
    """Whether every token of these prompts and their answers attends to all earlier tokens.

    If not, the model has a sliding window that is shorter than they are. Such a model cannot answer in a continuous
    batch: the window is counted in columns of the cache, and there a row's columns have gaps.
    """
    config = base.model.config.get_text_config()
    window = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    return window is None or _longest(base, prompts) + decoding.max_new_tokens <= window


def _longest(base: Base, prompts: Iterable[Prompt]) -> int:
    """Return the number of tokens of the longest prompt."""
    distinct = {prompt.messages: prompt for prompt in prompts}.values()
    return max((len(render(prompt.messages, base.tokenizer, ask=True)) for prompt in distinct), default=1)


def rows_at_once(base: Base, requests: Sequence[Request], decoding: Decoding, *, least: int) -> int:
    """Return how many rows to answer at once: `least` on a CPU; on a GPU, as many as fit, but at least `least`."""
    if base.machine.kind is DeviceKind.CPU:
        return least
    from harness.engine.trainers.fused.concurrency import free_bytes

    config = base.model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * heads * size * base.model.dtype.itemsize
    longest = _longest(base, (prompt for request in requests for prompt in request.prompts))
    adapters = sum(_bytes(request.adapter) for request in requests if request.adapter)
    fitting = _USABLE * (free_bytes(base) - adapters) / (token * (longest + decoding.max_new_tokens))
    return max(least, min(MOST_ROWS, int(fitting)))


def _bytes(adapter: Adapter) -> int:
    return sum(half.nbytes for pair in adapter.weights.values() for half in pair)


@contextlib.contextmanager
def _stacked(
    base: Base, requests: Sequence[Request], rows: int, *, graphs: bool
) -> Iterator[tuple[Stack | MaskedAdapters, list[int]]]:
    """Put the adapters on the base; yield them and each request's position among them."""
    adapters = [request.adapter for request in requests if request.adapter is not None]
    numbers = iter(range(len(adapters)))
    stack: Stack | MaskedAdapters | None = None
    if graphs:
        from harness.engine.generation.masked_adapters import masked

        stack = masked(base.model, adapters, rows)
    stack = stack or Stack(base.model, adapters)  # in full precision, which holds all weights
    try:
        yield stack, [BASE if request.adapter is None else next(numbers) for request in requests]
    finally:
        stack.remove()


def answer_requests(
    base: Base,
    requests: Sequence[Request],
    decoding: Decoding,
    *,
    rows: int = 64,
    join_tokens: int = JOIN_TOKENS,
    capture: Capture = cuda_graph,
    progress: Callable[[str, int], None],
) -> Iterator[tuple[str, list[Answer]]]:
    """Yield each request's answers, in the order of its prompts, when all of them are complete.

    The batch has at most `rows` rows; if it does not fit in the GPU's memory, their number is halved.
    """
    graphs = CudaGraphs(capture) if base.machine.kind is DeviceKind.CUDA or capture is not cuda_graph else None
    with (
        dequantised(base),
        fused_pointwise(base),
        _stacked(base, requests, rows, graphs=graphs is not None) as (stack, positions),
    ):
        slots = [
            _slot(base, request.name, position, prompt, decoding)
            for request, position in zip(requests, positions, strict=True)
            for prompt in {prompt.key: prompt for prompt in request.prompts}.values()
        ]
        evaluated = _evaluated(base, stack, slots, rows)
        left = {request.name: sum(slot.request == request.name for slot in slots) for request in requests}
        done: dict[str, dict[str, Answer]] = {request.name: {} for request in requests}
        wanted = {request.name: request.prompts for request in requests}
        for name in [name for name, count in left.items() if not count]:
            yield name, []
        for slot in _Batch(base, stack, decoding, rows, join_tokens, graphs).complete(_side_by_side(slots)):
            answers = done[slot.request]
            finished = finish(base.tokenizer, slot.tokens, _ends(base), decoding)
            given = evaluated.get((slot.request, slot.prompt.key), Evaluated())
            made = answer_of(slot.prompt.key, finished, slot.logs)
            reference = slot.reference if slot.draft else given.reference
            answers[slot.prompt.key] = replace(made, reference=reference, choices=given.choices)
            progress(slot.request, len(answers))
            if len(answers) == left[slot.request]:
                yield slot.request, [answers[prompt.key] for prompt in wanted[slot.request]]


def _side_by_side(slots: Sequence[_Slot]) -> list[_Slot]:
    """Return every request's first slot, then every second one, and so on, so that adapters have few padding rows."""
    own = [list(some) for _, some in groupby(slots, key=lambda slot: slot.request)]
    return [slot for same in zip_longest(*own) for slot in same if slot]


def _ends(base: Base) -> set[int]:
    return set(base.model.generation_config.eos_token_id)


def _evaluated(
    base: Base, stack: Stack | MaskedAdapters, slots: Sequence[_Slot], rows: int
) -> dict[tuple[str, str], Evaluated]:
    """Return the log-probabilities of choices, and of references that are no drafts, by request and prompt."""
    asked = [(slot, replace(slot.prompt, reference=None) if slot.draft else slot.prompt) for slot in slots]
    asked = [(slot, prompt) for slot, prompt in asked if texts_of(prompt)]

    def enter(batch: Sequence[tuple[int, Row]]) -> None:
        stack.enter([PassRow(asked[number][0].adapter, len(row.input_ids)) for number, row in batch])

    found = evaluate_all(base, base.model, [prompt for _, prompt in asked], batch_size=rows, enter=enter)
    return {(slot.request, slot.prompt.key): one for (slot, _), one in zip(asked, found, strict=True)}


@dataclass
class _Slot:
    """One row of the batch: a prompt of a request, and the tokens generated so far."""

    request: str
    adapter: int
    """Position of the request's adapter in the stack, or `BASE` without an adapter."""
    prompt: Prompt
    ids: list[int]
    """The tokens of the prompt."""
    draft: Row | None
    """The prompt with its reference, if that is a draft of the answer."""
    reference: Likelihood | None = None
    """The log-probability of the reference, if that is a draft and the row has joined."""
    tokens: list[int] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)
    generator: Any = None
    ended: bool = False

    @property
    def given(self) -> list[int]:
        """The tokens that are read when the row joins: those of the prompt, and of the draft if there is one."""
        return self.draft.input_ids if self.draft else self.ids

    @property
    def column(self) -> int:
        """The column of the last token that was generated."""
        return len(self.ids) + len(self.tokens) - 1

    @property
    def last(self) -> int:
        """The last token that was generated; of a padding row, the last token of its prompt."""
        return self.tokens[-1] if self.tokens else self.ids[-1]

    def padding(self, decoding: Decoding) -> _Slot:
        """Return a copy of this row that only fills an empty place in the batch; its output is discarded."""
        return replace(replace(self).begin(decoding), ended=True)

    def begin(self, decoding: Decoding) -> _Slot:
        """Discard the tokens generated so far, so that the answer starts again from its first token."""
        self.tokens, self.logs, self.ended = [], [], False
        self.generator = generator_of(self.prompt.key) if decoding.temperature else None
        return self


def _slot(base: Base, request: str, adapter: int, prompt: Prompt, decoding: Decoding) -> _Slot:
    ids = render(prompt.messages, base.tokenizer, ask=True)
    return _Slot(request, adapter, prompt, ids, draft_of(prompt, ids, base.tokenizer, decoding))


class _Batch:
    """The rows that are decoded together."""

    def __init__(
        self,
        base: Base,
        stack: Stack | MaskedAdapters,
        decoding: Decoding,
        rows: int,
        join_tokens: int,
        graphs: CudaGraphs | None,
    ) -> None:
        self._base, self._stack, self._decoding = base, stack, decoding
        # In a `Stack`, the kernels depend on the rows, so that a graph would only last until other rows join.
        self._graphs = None if isinstance(stack, Stack) and stack.adapters else graphs
        self._rows, self._join_tokens = rows, join_tokens
        self._ends = _ends(base)
        # Have at least four rows on a CPU: smaller batches use another matrix product, which rounds differently.
        self._least = 4 if base.machine.kind is DeviceKind.CPU else 1
        self._slots: list[_Slot] = []
        self._cache: Cache | None = None
        self._places: Slots
        self._mask: torch.Tensor
        """The columns that each row attends to, (rows, columns)."""
        self._last: torch.Tensor
        """Each row's last token, (rows, 1)."""
        self._positions: torch.Tensor
        """The position of each row's last token in its text, (rows, 1)."""
        self._columns: torch.Tensor
        """The column of each row's last token in the cache, (rows,)."""

    def complete(self, slots: Sequence[_Slot]) -> Iterator[_Slot]:
        """Yield every slot when it has ended. If memory runs out, the others start again, half as many at a time.

        Raises:
            torch.OutOfMemoryError: a single row does not fit in memory.
        """
        import torch

        waiting = sorted(slots, key=lambda slot: -len(slot.given))
        while waiting or self._active:
            try:
                with torch.inference_mode():
                    ended = self._advance(waiting)
            except torch.OutOfMemoryError:
                if self._rows == 1:
                    raise
                waiting = sorted([*self._active, *waiting], key=lambda slot: -len(slot.given))
                self._slots, self._cache, self._rows = [], None, self._rows // 2
                self._drop_graphs()
                torch.cuda.empty_cache()
                continue
            yield from ended

    @property
    def _active(self) -> list[_Slot]:
        return [slot for slot in self._slots if not slot.ended]

    def _advance(self, waiting: list[_Slot]) -> list[_Slot]:
        """Let waiting rows join and generate their first token, or generate one token for every row in the batch.

        Returns the slots that ended with that token.
        """
        active = self._active
        room = self._rows - len(active)
        if waiting and (not active or 4 * room >= self._rows):
            if not self._slots:
                self._open(waiting)
            count = max(1, min(room, self._join_tokens // len(waiting[0].given)))
            joining = sorted(waiting[:count], key=lambda slot: slot.adapter)
            ended = self._join([slot.begin(self._decoding) for slot in joining])
            # Only now are they no longer waiting: if `_join` runs out of memory, they must still be in the list.
            del waiting[:count]
            return ended
        if not waiting and 2 * len(active) <= len(self._slots) > self._least:
            self._keep_active()
        return self._step()

    # --- rows join and leave --------------------------------------------------------------------------------------

    def _open(self, waiting: Sequence[_Slot]) -> None:
        """Allocate the batch's rows, and enough columns for the longest prompt and its answer."""
        import torch

        from harness.engine.generation.kv_cache import Slots, slot_cache

        self._drop_graphs()
        device = self._base.device
        count = max(self._least, min(self._rows, len(waiting)))
        columns = max(len(slot.ids) for slot in waiting) + self._decoding.max_new_tokens
        self._places = Slots(count, columns, device)
        self._cache = slot_cache(self._base.model.config.get_text_config().num_hidden_layers, self._places)
        self._slots = [waiting[0].padding(self._decoding) for _ in range(count)]
        self._mask = torch.zeros(count, columns, dtype=torch.bool, device=device)
        self._mask[:, 0] = True  # an unused row must attend to something, or its scores are NaN
        self._last, self._positions = (torch.zeros(count, 1, dtype=torch.long, device=device) for _ in range(2))
        self._columns = torch.zeros(count, dtype=torch.long, device=device)

    def _join(self, slots: list[_Slot]) -> list[_Slot]:
        """Put new rows in the place of ended or unused ones; return the slots that already end now.

        Prompts and drafts are padded on the right: no token attends to later padding, and the tokens that are generated
        later replace padding and the tokens of a draft that was wrong.
        """
        import torch

        base, device = self._base, self._base.device
        rows = [*slots, *(slots[0].padding(self._decoding) for _ in range(self._least - len(slots)))]
        vacant = [number for number, slot in enumerate(self._slots) if slot.ended][: len(rows)]
        places, count = torch.tensor(vacant, device=device), len(vacant)
        width, pad = max(len(slot.given) for slot in rows), base.tokenizer.pad_token_id
        ids = torch.tensor([slot.given + [pad] * (width - len(slot.given)) for slot in rows], device=device)
        every = torch.arange(width, device=device)
        mask = every < torch.tensor([len(slot.given) for slot in rows], device=device)[:, None]
        self._stack.enter([PassRow(slot.adapter, len(slot.given)) for slot in rows])
        self._places.join(places)
        first = min(len(slot.ids) for slot in rows) - 1
        logits = self._logits(ids, mask, every.expand(len(rows), -1), width - first)
        if unusable := [slot for slot, own in zip(slots, logits, strict=False) if slot.draft and own.isnan().any()]:
            # In 16 bits, a reference that the model would never write may overflow. A mask does not stop what is NaN.
            for slot in unusable:
                slot.draft = None
            return self._join(slots)
        for start in range(0, len(slots), _SCORED_ROWS):
            some = slice(start, start + _SCORED_ROWS)
            self._begin_answers(slots[some], logits[some], first)
        for place, slot in zip(vacant, rows, strict=False):
            self._slots[place] = slot
        columns = torch.tensor([slot.column for slot in rows[:count]], device=device)
        self._mask[places] = torch.arange(self._places.columns, device=device) < columns[:, None]
        self._last[places, 0] = torch.tensor([slot.last for slot in rows[:count]], device=device)
        self._positions[places, 0] = self._columns[places] = columns
        self._enter_all()
        return [slot for slot in slots if slot.ended]

    def _keep_active(self) -> None:
        """Remove the rows that have ended. To be called when no prompt waits to take their place."""
        import torch

        from harness.engine.generation.kv_cache import keep

        self._drop_graphs()
        kept = [number for number, slot in enumerate(self._slots) if not slot.ended]
        kept += [number for number, slot in enumerate(self._slots) if slot.ended][: max(0, self._least - len(kept))]
        rows = torch.tensor(kept, device=self._base.device)
        keep(self._cache, rows)
        self._places.keep(rows)
        self._mask, self._last = self._mask[rows], self._last[rows]
        self._positions, self._columns = self._positions[rows], self._columns[rows]
        self._slots = [self._slots[number] for number in kept]
        self._enter_all()

    def _enter_all(self) -> None:
        self._stack.enter([PassRow(slot.adapter, 1) for slot in self._slots])

    # --- tokens ---------------------------------------------------------------------------------------------------

    def _begin_answers(self, slots: Sequence[_Slot], logits: torch.Tensor, first: int) -> None:
        """Set the references' log-probabilities and generate the first tokens of the answers.

        `logits`, (rows, tokens, vocabulary), are those of the slots' rows at the columns from `first` on.
        """
        spans = [range(len(slot.ids) - 1, len(slot.given)) for slot in slots]
        row = [number for number, span in enumerate(spans) for _ in span]
        scores = logits[row, [at - first for span in spans for at in span]].float()
        starts = list(accumulate(map(len, spans), initial=0))
        found = draft_likelihoods([(slot.draft, len(slot.ids)) for slot in slots], scores)
        for slot, likelihood in zip(slots, found, strict=True):
            slot.reference = likelihood
        if self._decoding.temperature:  # only the first token of each answer is sampled here
            scores, starts = scores[starts[:-1]], list(range(len(slots) + 1))
        taken, logs = (each.tolist() for each in choose(scores, self._decoding.temperature, _generators(slots)))
        for slot, start, end in zip(slots, starts, starts[1:], strict=False):
            own = taken[start:end]
            known = agreed(own, slot.given[len(slot.ids) :])
            for token, log in zip(own[:known], logs[start:end], strict=False):
                if not slot.ended:
                    self._append(slot, token, log)

    def _step(self) -> list[_Slot]:
        """Generate one token for every row in the batch; return the slots that end with that token."""
        reach = 1 + max(slot.column for slot in self._active)
        if self._graphs:
            reach = min(-(-reach // _REACH) * _REACH, self._places.columns)
        self._mask.scatter_(1, self._columns[:, None], value=True)
        self._places.step(self._columns, reach)
        scores = self._next_logits(reach)[:, -1].float()
        active = self._active
        taken, logs = choose(scores, self._decoding.temperature, _generators(self._slots))
        # The tensors stay the same: a CUDA graph reads them.
        self._last.copy_(taken[:, None])
        self._positions.add_(1)
        # Rows that have ended may write to the last column again and again: their output is discarded.
        self._columns.add_(1).clamp_(max=self._places.columns - 1)
        for slot, token, log in zip(self._slots, taken.tolist(), logs.tolist(), strict=True):
            if not slot.ended:
                self._append(slot, token, log)
        return [slot for slot in active if slot.ended]

    def _next_logits(self, reach: int) -> torch.Tensor:
        """Return the logits after the last token of every row, (rows, 1, vocabulary)."""
        compute = partial(self._logits, self._last, self._mask[:, :reach], self._positions, 1)
        return self._graphs((len(self._slots), reach), compute) if self._graphs else compute()

    def _drop_graphs(self) -> None:
        """Drop the graphs: the tensors that they read are about to be replaced."""
        if self._graphs:
            self._graphs.drop()

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, last: int) -> torch.Tensor:
        """Return the logits at the last tokens, (rows, last, vocabulary).

        `ids` and `positions` are (rows, tokens), `mask` is (rows, columns).
        """
        out = self._base.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=last,
        )
        logits: torch.Tensor = out.logits[:, -last:]
        return logits

    def _append(self, slot: _Slot, token: int, log: float) -> None:
        """Append a token and its log-probability to an answer, which may end with it."""
        slot.tokens.append(token)
        slot.logs.append(log)
        full = len(slot.tokens) >= self._decoding.max_new_tokens
        slot.ended = full or token in self._ends
        slot.ended = slot.ended or stopped(self._base.tokenizer, slot.tokens, self._decoding.stop) is not None


def _generators(slots: Sequence[_Slot]) -> list[Any]:
    return [slot.generator for slot in slots]
