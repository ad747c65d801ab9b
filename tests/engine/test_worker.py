"""One worker's job from start to end, run in the test's process: its events, what it commits, and what it refuses."""

from __future__ import annotations

import errno
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import EngineError, StoreError
from harness.core.hashing import file_digest
from harness.core.job import Event, EventKind, Job, Prompt
from harness.core.measurement import Basis, Measurement, Phase, Shortage
from harness.core.model import ModelRef
from harness.core.suite import Decoding, Message
from harness.core.training_outcome import Status, Training
from harness.core.units import Unit
from harness.engine.loading import Base
from harness.engine.worker import _end, _message, _status, work
from harness.models.resolving import POCKET, resolve
from harness.storage.cache import Cache
from harness.storage.manifest import verify_manifest
from tests.support.jobs import ASKED, TINY, done, job, task
from tests.support.short_trainings import QUESTIONS, prompts, talk


def refusal(job: Job) -> str:
    """Run a job that is refused before any training, and return the message."""
    well, events = done(job)
    assert not well
    assert [event.kind for event in events if event.kind is not EventKind.LOADING] == [EventKind.REFUSED]
    assert not (Path(job.cache) / "trainings").exists()
    return events[-1].message


def variant_of_pocket(folder: Path, template: str | None) -> ModelRef:
    """Make a copy of the pocket model with another chat template, or without one."""
    for path in POCKET.iterdir():
        if path.name not in ("chat_template.jinja", "tokenizer_config.json"):
            (folder / path.name).symlink_to(path)
    config = json.loads((POCKET / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return ModelRef(folder.name, str(folder), "0123")


def test_a_job_is_reported_in_order_and_committed(tmp_path: Path) -> None:
    """A job reports loading, then each task's start, steps, answers and end, and commits adapters and answers."""
    well, events = done(job(tmp_path, task("base", None), task()))
    assert well
    assert [(event.kind, event.trial, event.done, event.total) for event in events] == [
        (EventKind.LOADING, "", 0, 0),
        (EventKind.LOADED, "", 0, 0),
        (EventKind.STARTED, "base", 0, 0),
        (EventKind.ANSWERING, "base", 3, 3),
        (EventKind.FINISHED, "base", 0, 0),
        (EventKind.STARTED, "trial", 0, 0),
        (EventKind.STEP, "trial", 1, 2),
        (EventKind.STEP, "trial", 2, 2),
        (EventKind.ANSWERING, "trial", 3, 3),
        (EventKind.FINISHED, "trial", 0, 0),
    ]
    assert [event.status for event in events if event.kind is EventKind.FINISHED] == [Status.SUCCEEDED] * 2
    assert all(event.loss for event in events if event.kind is EventKind.STEP)
    cache = Cache(tmp_path)
    held = cache.training("training-trial")
    assert held is not None
    assert (held.status, len(held.steps)) == (Status.SUCCEEDED, 2)
    assert held.fingerprint is not None
    assert (held.fingerprint.rows, held.fingerprint.saved_dtype) == (8, "F32")
    verify_manifest(cache.adapter("training-trial"))
    (of_base,), (of_trial,) = cache.answers("training-base"), cache.answers("training-trial")
    assert [a.key for a in of_base.answers] == [a.key for a in of_trial.answers] == [p.key for p in ASKED]
    assert [cost.phase.value for cost in of_base.costs] == ["load", "answer before"]
    assert [cost.phase.value for cost in of_trial.costs] == ["answer after"]


def test_a_cached_adapter_answers_without_training(tmp_path: Path) -> None:
    """If a task says not to train, the adapter in the cache answers the new prompts."""
    done(job(tmp_path))
    adapter = Cache(tmp_path).adapter("training-trial") / "adapter_model.safetensors"
    made = adapter.stat().st_mtime_ns
    more = replace(task(asked=prompts(*QUESTIONS[3:5])), train=False)
    well, events = done(job(tmp_path, more))
    assert well
    assert EventKind.STEP not in {event.kind for event in events}
    assert adapter.stat().st_mtime_ns == made
    assert [len(made.answers) for made in Cache(tmp_path).answers("training-trial")] == [3, 2]


def test_a_damaged_adapter_is_not_answered_with(tmp_path: Path) -> None:
    """If one byte of a cached adapter was changed, the job is refused, and the message names the adapter's file."""
    done(job(tmp_path))
    adapter = Cache(tmp_path).adapter("training-trial") / "adapter_model.safetensors"
    content = bytearray(adapter.read_bytes())
    content[-5] ^= 1
    adapter.write_bytes(content)
    well, events = done(job(tmp_path, replace(task(), train=False)))
    assert not well
    assert events[-1].kind is EventKind.REFUSED
    assert f"{adapter} is missing, or has changed since it was saved" in events[-1].message
    assert len(Cache(tmp_path).answers("training-trial")) == 1


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_a_failing_task_is_reported_and_ends_the_worker(tmp_path: Path) -> None:
    """If a task fails, its error is reported, it commits no training, and the worker ends before the next task."""
    well, events = done(job(tmp_path, task("head", replace(TINY, target_modules=("lm_head",))), task()))
    assert not well
    assert [event.kind for event in events[1:]] == [EventKind.LOADED, EventKind.STARTED, EventKind.FINISHED]
    assert (events[-1].trial, events[-1].status) == ("head", Status.FAILED)
    assert events[-1].message.startswith("ValueError: Applying a PEFT adapter to `lm_head` is not supported")
    assert Cache(tmp_path).training("training-head") is None


def test_a_further_job_uses_the_loaded_base(tmp_path: Path) -> None:
    """A second job on the base that the first has loaded gives the same adapter and answers as in a new process."""
    loaded = work(job(tmp_path / "one", task("base", None), task("other")), lambda event: None)
    assert loaded is not None
    events: list[Event] = []
    assert work(job(tmp_path / "one"), events.append, loaded=loaded) is loaded
    assert [event.kind for event in events[:2]] == [EventKind.LOADED, EventKind.STARTED]
    assert work(job(tmp_path / "two"), lambda event: None)
    one, two = (Cache(tmp_path / name) for name in ("one", "two"))
    assert one.answers("training-trial")[0].answers == two.answers("training-trial")[0].answers
    digests = {file_digest(each.adapter("training-trial") / "adapter_model.safetensors") for each in (one, two)}
    assert len(digests) == 1


def test_a_worker_waits_until_another_has_loaded(tmp_path: Path) -> None:
    """While another worker loads a base, a worker says that it waits, and then uses the base that was saved."""
    cache, given = Cache(tmp_path), replace(job(tmp_path), base="key")
    assert work(given, lambda event: None)
    saved = cache.base("key")
    assert saved is not None
    events: list[Event] = []
    with cache.loading(lambda: None) as lock, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(work, replace(given, tasks=(task("base", None),)), events.append)
        while not events:
            time.sleep(0.05)
        lock.release()
        assert waiting.result() is not None
    assert [event.kind for event in events].count(EventKind.LOADING) > 1


# --- refused before any training -----------------------------------------------------------------------------------


def test_a_target_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    """If the model lacks a target module, the job is refused; PEFT would train the others without an error."""
    typo = task("typo", replace(TINY, target_modules=("q_proj", "vproj")))
    assert refusal(job(tmp_path, task(), typo)).startswith(
        "target_modules: the model has no module 'vproj'\nChoose from "
    )


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    """A model without a chat template is refused, and the message suggests to use the model's chat version."""
    folder = tmp_path / "bare"
    folder.mkdir()
    message = refusal(job(tmp_path, model=variant_of_pocket(folder, None)))
    assert message.startswith("bare has no chat template")
    assert "chat version" in message


def test_a_system_prompt_that_the_template_refuses_is_refused(tmp_path: Path) -> None:
    """If the chat template refuses a case, the job is refused with the case's question and the template's error."""
    folder = tmp_path / "strict"
    folder.mkdir()
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    plain = (POCKET / "chat_template.jinja").read_text(encoding="utf-8")
    model = variant_of_pocket(folder, template + plain)
    told = Prompt("key", (Message("system", "Be brief."), Message("user", "Who are you?")))
    message = refusal(job(tmp_path, task(asked=(told,)), model=model))
    assert message.startswith(
        "the case that asks 'Who are you?' cannot be written with the model's chat template: System role not supported"
    )


def test_a_prompt_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    """A prompt that does not fit in the model's context together with the longest allowed answer is refused."""
    long = prompts("word " * 500)
    assert "and the model's context is 512\nShorten the prompt" in refusal(job(tmp_path, task(asked=long)))
    roomy = Decoding(max_new_tokens=505)
    assert "and the model's context is 512" in refusal(job(tmp_path, decoding=roomy))


@pytest.mark.parametrize("more", [{"reference": "word " * 600}, {"choices": ("a", "word " * 600)}], ids=str)
def test_a_reference_longer_than_the_context_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    """If a reference or choice does not fit in the model's context, the job is refused, with the case's question."""
    long = replace(ASKED[0], **more)
    message = refusal(job(tmp_path, task(asked=(long,))))
    assert message.startswith(f"the case that asks {QUESTIONS[0]!r}: its prompt with its reference or a choice takes")
    assert "and the model's context is 512\nShorten its reference and choices" in message


def test_log_probabilities_are_committed(tmp_path: Path) -> None:
    """Log-probabilities of references and choices are committed with the answers of the base and of the trial."""
    asked = tuple(replace(prompt, reference="Paris.", choices=("Paris.", "Rome.")) for prompt in ASKED)
    assert done(job(tmp_path, task("base", None, asked), task(asked=asked)))[0]
    (of_base,), (of_trial,) = (Cache(tmp_path).answers(f"training-{name}") for name in ("base", "trial"))
    for before, after in zip(of_base.answers, of_trial.answers, strict=True):
        assert before.likelihood
        assert after.likelihood
        assert before.reference == before.choices[0]
        assert len(after.choices) == 2
        assert before.reference != after.reference


def test_a_training_row_longer_than_the_context_is_refused(tmp_path: Path) -> None:
    """If a training row is longer than the model's context and `max_length` does not cut it, the job is refused."""
    long = talk("Say it.", "word " * 600, line=4)
    lengthy = task(settings=replace(TINY, max_length=2048))
    message = refusal(job(tmp_path, lengthy, examples=[long]))
    assert message.startswith("training row 4: it takes")
    assert "Set max_length to at most 512" in message


def test_a_training_row_without_labels_is_refused(tmp_path: Path) -> None:
    """If the prompt of a training row alone fills `max_length`, the job is refused before any training."""
    message = refusal(job(tmp_path, task(settings=replace(TINY, max_length=8))))
    assert message.startswith("training row 1: its prompt alone takes all 8 tokens of max_length")


# --- how tasks end -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MemoryError(), Status.OUT_OF_MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
         Status.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: out of memory"), Status.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), Status.OUT_OF_MEMORY),
        (RuntimeError("CUDA error: device-side assert triggered"), Status.FAILED),
        (ValueError("no"), Status.FAILED),
        (EngineError("no"), Status.FAILED),
    ],
)  # fmt: skip
def test_running_out_of_memory_is_a_result_of_its_own(error: Exception, status: Status) -> None:
    """Only out-of-memory errors, of PyTorch, the CUDA driver or Python, have the status OUT_OF_MEMORY."""
    assert _status(error) is status


def test_pytorchs_own_error_is_out_of_memory() -> None:
    """The out-of-memory errors that PyTorch raises on CUDA and on a CPU have the status OUT_OF_MEMORY."""
    import torch

    assert _status(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")) is Status.OUT_OF_MEMORY
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58, dtype=torch.uint8)
    assert _status(caught.value) is Status.OUT_OF_MEMORY


def test_a_trial_that_does_not_fit_reports_its_shortage(tmp_path: Path) -> None:
    """If a trial runs out of memory, the phase, the failed request and the memory in use are reported and stored."""
    wide = task("wide", replace(TINY, rank=2**40, alpha=1))
    well, events = done(job(tmp_path, wide, task("after")))
    assert not well, "the process may not go on"
    told = events[-1]
    assert (told.kind, told.trial, told.status) == (EventKind.FINISHED, "wide", Status.OUT_OF_MEMORY)
    short, ended = told.shortage, Cache(tmp_path).training("training-wide")
    assert short is not None
    assert short.requested is not None
    assert (short.phase, short.requested.value) == (Phase.TRAIN, 256 * 2**40 * 4)
    assert short.resident.value > 10**7
    assert (short.peak_allocated, short.limit, short.memory_cap) == (None, None, None)
    assert ended is not None
    assert (ended.status, ended.shortage, ended.message) == (Status.OUT_OF_MEMORY, short, told.message)


def test_a_base_that_does_not_fit_the_disk_is_refused(tmp_path: Path) -> None:
    """If a base with random weights needs more than the free disk space, the job is refused before the base is made."""
    huge = json.loads((POCKET / "config.json").read_text(encoding="utf-8")) | {"vocab_size": 2**40}
    (tmp_path / "shapes" / "huge").mkdir(parents=True)
    (tmp_path / "shapes" / "huge" / "config.json").write_text(json.dumps(huge), encoding="utf-8")
    ref = resolve("shape:huge", shapes=tmp_path / "shapes")
    assert refusal(replace(job(tmp_path / "cache", model=ref), base="key")).startswith("the disk has too little space")


def test_a_shortage_on_a_gpu_is_described() -> None:
    """An out-of-memory message on a GPU has the phase, the failed request, the memory in use and the limit."""

    def size(gib: float) -> Measurement:
        return Measurement(gib * 2**30, Unit.BYTES, Basis.EMULATED, "NVIDIA H200")

    short = Shortage(Phase.TRAIN, size(1.5), size(3), size(13), size(13.5), size(15), size(14.2), int(14.2 * 2**30))
    assert _message(RuntimeError("CUDA out of memory. Tried to allocate ..."), short) == (
        "out of GPU memory in phase 'train': 1.50 GiB more did not fit in 14.20 GiB, "
        "of which at most 13.00 GiB were in use"
    )


def test_a_failure_is_reported_in_one_line() -> None:
    """An error of the harness is reported with its remedy, and any other error with its type and first line."""
    assert _message(ValueError("first\nsecond")) == "ValueError: first"
    assert _message(RuntimeError()) == "RuntimeError"
    assert _message(EngineError("what", remedy="do this")) == "what\ndo this"


def test_a_full_disk_ends_the_job() -> None:
    """A full disk ends the job, even if another exception wraps the operating system's error."""
    events: list[Event] = []
    full = RuntimeError("while saving")
    full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert not _end("trial", full, events.append)
    assert [event.kind for event in events] == [EventKind.REFUSED]
    assert events[0].message.startswith("the disk is full")


# --- killed while committing ---------------------------------------------------------------------------------------


def test_a_partial_commit_is_no_training(tmp_path: Path, base: Base) -> None:
    """A training that was killed during its commit does not count as finished, and can be committed later."""
    cache, partial = Cache(tmp_path), tmp_path / "trainings" / ".partial-0123"
    ended = Training("training-trial", Status.SUCCEEDED, "", (), None)
    cache.commit_training(ended, lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"x") and None)
    cache.adapter(ended.id).rename(partial)
    assert cache.training(ended.id) is None
    partial.rename(cache.adapter(ended.id))
    (cache.adapter(ended.id) / "training.json").unlink()
    assert cache.training(ended.id) is None
    well, _ = done(job(tmp_path))
    assert well
    assert cache.training(ended.id) is not None
    verify_manifest(cache.adapter(ended.id))


def test_a_commit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """If a commit fails, neither a partial folder nor a training that looks finished is left in the cache."""

    def broken(folder: Path) -> None:
        (folder / "half").write_bytes(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = Cache(tmp_path)
    with pytest.raises(StoreError, match="the disk is full"):
        cache.commit_training(Training("id", Status.SUCCEEDED, "", (), None), broken)
    assert cache.training("id") is None
    assert [*tmp_path.glob("trainings/*"), *tmp_path.glob("commits/*")] == []


def test_a_token_without_an_embedding_is_refused(tmp_path: Path) -> None:
    """If the tokenizer's padding token has no embedding, the job is refused; on a GPU, it would stop the process."""
    (folder := tmp_path / "pocket").mkdir()
    model = variant_of_pocket(folder, (POCKET / "chat_template.jinja").read_text(encoding="utf-8"))
    (folder / "special_tokens_map.json").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "[PAD]"}), encoding="utf-8")
    message = refusal(replace(job(tmp_path / "cache", task()), model=model))
    assert "the padding token '[PAD]' has the id 2048" in message
    assert "resize_token_embeddings" in message


def test_a_template_that_closes_no_answer_is_refused(tmp_path: Path) -> None:
    """If the chat template writes no token behind an answer at which generation could stop, the job is refused."""
    (folder := tmp_path / "pocket").mkdir()
    model = variant_of_pocket(folder, "{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}")
    assert "writes no end token" in refusal(replace(job(tmp_path / "cache", task()), model=model))


def test_an_adapter_whose_pattern_never_ends_is_refused(tmp_path: Path) -> None:
    """A pattern of an adapter from outside that takes hours to match ends the job with an error that names it."""
    config = {"peft_type": "LORA", "r": 2, "target_modules": "(.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*.*)*Q"}

    def save(folder: Path) -> None:
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")

    Cache(tmp_path).commit_training(Training("training-mine", Status.SUCCEEDED, "", (), None), save)
    asked = replace(task("mine", settings=None), attach="mine")
    ok, events = done(job(tmp_path, asked))
    assert not ok
    assert events[-1].kind is EventKind.REFUSED
    assert "--adapter mine: matching its patterns with modules took more than" in events[-1].message
