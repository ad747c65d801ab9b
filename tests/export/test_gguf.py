"""Tests of `harness export --to gguf`: finding llama.cpp, errors, and conversion. Only `nox -s gguf` runs llama.cpp."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.core.errors import EngineError, ExportError, StoreError
from harness.core.export import GgufType
from harness.core.parity import Stage
from harness.core.suite import Decoding
from harness.engine.generation.backends import llama_cpp_chat
from harness.export import llama_cpp
from harness.export.config_files import tokenizer_config_of
from harness.export.targets.gguf import GgufRequest, check_tools, instructions, llama_cli_command, to_gguf
from harness.export.targets.merged import MergeRequest, to_merged
from harness.models.resolving import POCKET
from harness.storage.manifest import verify_manifest
from harness.storage.runs import RunStore
from tests.support.small_disks import small_disk
from tests.support.stored_files import FULL
from tests.support.trained_run import inside, source_of


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Hide this machine's llama.cpp from all tests except those that need it."""
    if "gguf" not in request.keywords:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setenv("CXX", "c++")


# --- finding and installing llama.cpp ----------------------------------------------------------------------


def test_the_converter_is_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The converter is taken from the given folder, else from PATH, else from where the harness installs it."""
    named, on_path = tmp_path / "named", tmp_path / "path"
    for folder in (named, on_path, llama_cpp.home()):
        folder.mkdir(parents=True)
        (folder / llama_cpp.CONVERTER).touch(mode=0o755)
    with pytest.raises(ExportError, match=llama_cpp.LORA_CONVERTER):
        llama_cpp.converter(script=llama_cpp.LORA_CONVERTER)
    assert llama_cpp.converter().parent == llama_cpp.home()
    monkeypatch.setenv("PATH", str(on_path))
    assert llama_cpp.converter().parent == on_path
    assert llama_cpp.converter(named).parent == named


def test_without_a_converter_the_error_names_the_remedy(tmp_path: Path) -> None:
    """If no converter is found, or the given folder has none, the remedy says how to get it."""
    with pytest.raises(ExportError, match="harness doctor --install-llama-cpp"):
        llama_cpp.converter()
    with pytest.raises(ExportError, match="git clone"):
        llama_cpp.converter(tmp_path)


class Pip:
    """A fake pip. Its download is a small archive with the given members, in place of the real llama-cpp-python."""

    def __init__(self, members: Sequence[str]) -> None:
        self.members, self.commands = members, list[list[str]]()

    def __call__(self, words: Sequence[str]) -> None:
        self.commands.append(list(words))
        if "download" not in words:
            return
        folder = Path(words[words.index("--dest") + 1])
        self.pinned = Path(words[words.index("--requirement") + 1]).read_text(encoding="utf-8")
        (folder / "empty").touch()
        with tarfile.open(folder / f"llama_cpp_python-{llama_cpp.VERSION}.tar.gz", "w:gz") as archive:
            for name in self.members:
                archive.add(folder / "empty", name)


VENDOR = f"llama_cpp_python-{llama_cpp.VERSION}/vendor/llama.cpp"
CONVERTERS = (llama_cpp.CONVERTER, llama_cpp.LORA_CONVERTER)
HELD = [f"{VENDOR}/{name}" for name in (*CONVERTERS, "conversion/base.py", "gguf-py/gguf/a.py", "LICENSE", "x.cpp")]


def test_install_checks_the_hash_and_keeps_the_converter() -> None:
    """`install` lets pip check the archive's hash, keeps the converter, and installs the Python binding."""
    pip = Pip(HELD)
    folder = llama_cpp.install(lambda text: None, run=pip)
    assert f"=={llama_cpp.VERSION} --hash=sha256:{llama_cpp.SHA256}" in pip.pinned
    assert "--require-hashes" in pip.commands[0]
    assert pip.commands[1][-1].endswith(f"llama_cpp_python-{llama_cpp.VERSION}.tar.gz")
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "conversion", *CONVERTERS, "gguf-py"]
    assert llama_cpp.converter().parent == folder
    assert not list(folder.parent.glob(".partial*"))


def test_a_converter_that_is_missing_is_fetched_without_building(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the binding is installed, `install` needs no compiler and fetches the converters only, and only once."""
    monkeypatch.delenv("CXX")
    pip = Pip(HELD)
    for _ in range(2):
        folder = llama_cpp.install(lambda text: None, run=pip, has_binding=lambda: True)
    assert [words[4] for words in pip.commands] == ["download"]
    assert (folder / llama_cpp.LORA_CONVERTER).is_file()


def test_paths_of_the_archive_cannot_lead_outside() -> None:
    """A file whose path in the archive leads out of its folder is not installed, there or elsewhere."""
    outside = [f"{VENDOR}/conversion/../../outside", "../vendor/llama.cpp/conversion/../outside", "/outside"]
    folder = llama_cpp.install(lambda text: None, run=Pip([*HELD, *outside]))
    assert llama_cpp.converter().parent == folder
    assert not list(folder.parent.parent.rglob("outside"))


def test_without_a_compiler_nothing_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no compiler, nothing is downloaded, and the remedy names the package to install."""
    monkeypatch.delenv("CXX")
    pip = Pip(HELD)
    with pytest.raises(ExportError, match=r"no C\+\+ compiler") as refused:
        llama_cpp.install(lambda text: None, run=pip)
    assert "apt-get install build-essential" in refused.value.remedy
    assert not pip.commands


def test_the_error_of_a_failed_command() -> None:
    """If a command fails, the error has the end of the command's output or its signal, and explains known messages."""
    for code, message in (
        ("import sys; sys.exit('Model FooForCausalLM is not supported')", "FooForCausalLM is not supported"),
        (
            "raise NotImplementedError('BPE pre-tokenizer was not recognized')",
            "not support this model's tokenizer",
        ),
        ("import sys; sys.exit('Failed building wheel for llama_cpp_python')", "To see why: python"),
        ("import os; os.kill(os.getpid(), 11)", "ended by signal 11"),
    ):
        with pytest.raises(ExportError, match=message):
            llama_cpp.command([sys.executable, "-c", code])


# --- conversion, with a fake converter ---------------------------------------------------------------------


def merged_of(run: RunStore, folder: Path) -> Path:
    from harness.engine.merging import merge

    request = MergeRequest(folder / "merged")
    return to_merged(source_of(run), folder, request, merge=merge, show_progress=lambda text: None)


def test_a_gguf_has_a_record_and_a_manifest(trained_run: RunStore, tmp_path: Path) -> None:
    """A GGUF's folder has a manifest, and its export.json says that the run did not evaluate a quantised GGUF."""
    (tmp_path / llama_cpp.CONVERTER).touch()
    source, merged = source_of(trained_run), merged_of(trained_run, tmp_path)
    commands: list[Sequence[str]] = []

    def converts(words: Sequence[str]) -> None:
        commands.append(words)
        Path(words[-1]).write_bytes(b"GGUF")

    for kind, same in ((GgufType.F16, True), (GgufType.Q8_0, False)):
        request = GgufRequest(kind, llama_cpp=tmp_path)
        file = to_gguf(source, merged, tmp_path, request, run=converts)
        assert file.name == f"small-{source.label}-{kind}.gguf"
        verify_manifest(file.parent)
        assert f'"evaluated": {str(same).lower()}' in (file.parent / "export.json").read_text()
        assert to_gguf(source, merged, tmp_path, request, run=converts) == file
    assert [words[words.index("--outtype") + 1] for words in commands] == ["f16", "q8_0"]


def test_a_failed_conversion_leaves_no_file(trained_run: RunStore, tmp_path: Path) -> None:
    """If a conversion fails, no GGUF file with the final name is left."""
    (tmp_path / llama_cpp.CONVERTER).write_text("import sys; open(sys.argv[-1], 'w').write('GG'); sys.exit('broken')")
    source, merged = source_of(trained_run), merged_of(trained_run, tmp_path)
    with pytest.raises(ExportError, match="broken"):
        to_gguf(source, merged, tmp_path, GgufRequest(GgufType.F16, llama_cpp=tmp_path))
    assert not [path for path in tmp_path.rglob("*.gguf") if not path.name.startswith(".partial-")]


@pytest.mark.slow
def test_a_disk_that_fills_during_the_conversion(trained_run: RunStore, tmp_path: Path) -> None:
    """If the disk fills while the converter writes, the error says so, whatever the converter prints."""
    (tmp_path / llama_cpp.CONVERTER).touch()
    source, merged = source_of(trained_run), merged_of(trained_run, tmp_path)
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    with small_disk(tmp_path / "disk", 1_200_000_000) as disk:

        def fills(words: Sequence[str]) -> None:
            disk.fill(1000)
            raise ExportError("OSError: 69632 requested and 54592 written")

        with pytest.raises(StoreError, match=r"the disk is full: could not write .*q8_0\.gguf") as full:
            to_gguf(source, merged, disk.folder, GgufRequest(GgufType.Q8_0, llama_cpp=tmp_path), run=fills)
    assert full.value.remedy == FULL


def test_the_file_of_a_foreign_run_stays_in_its_folder(trained_run: RunStore, tmp_path: Path) -> None:
    """If a run's suite is named like a path, the GGUF file is nevertheless written into the export's folder."""
    (tmp_path / llama_cpp.CONVERTER).touch()
    source, merged = source_of(trained_run), merged_of(trained_run, tmp_path)
    run = replace(source.run, suite=replace(source.run.suite, name="../../evil"))
    request = GgufRequest(GgufType.F16, llama_cpp=tmp_path)
    made = to_gguf(
        replace(source, run=run), merged, tmp_path / "exports", request, run=lambda words: Path(words[-1]).touch()
    )
    assert made.parent.parent == tmp_path / "exports"
    assert made.name == f"evil-{source.label}-f16.gguf"


def test_a_missing_tokenizer_package_is_reported_before_merging(trained_run: RunStore, tmp_path: Path) -> None:
    """If a model's tokenizer needs the package sentencepiece and it is missing, an error says so before the merge."""
    (tmp_path / llama_cpp.CONVERTER).touch()
    source, request = source_of(trained_run), GgufRequest(GgufType.F16, llama_cpp=tmp_path)
    check_tools(source, request)
    with pytest.raises(ExportError, match="needs sentencepiece") as refused:
        check_tools(source, request, installed=lambda package: False)
    assert "pip install sentencepiece" in refused.value.remedy
    llama_cpp.check_tokenizer(tmp_path)


def test_the_llama_cli_command_asks_like_the_run(trained_run: RunStore) -> None:
    """The printed llama-cli command has the run's temperature and the suite's system prompt, quoted for a shell."""
    source = source_of(trained_run)
    assert llama_cli_command(source, Path("a/b.gguf")) == "llama-cli -m b.gguf --temp 0"
    suite = replace(source.run.suite, system_prompt="Be 'kind'; $HOME")
    words = llama_cli_command(replace(source, run=replace(source.run, suite=suite)), Path("b.gguf"))
    told = subprocess.run(["/bin/sh", "-c", f"printf '%s\\n' {words}"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "Be 'kind'; $HOME"


def test_the_instructions_have_every_step(trained_run: RunStore, tmp_path: Path) -> None:
    """The printed instructions say how to install llama.cpp, what to copy and type, and how to clear the chat."""
    source, file = source_of(trained_run), tmp_path / "b.gguf"
    file.write_bytes(bytes(2_000_000))
    told = instructions(Path("a run"), source, file)
    name = source.variant.name
    assert shlex.split(told.splitlines()[0])[-6:] == ["harness", "chat", "a run", name, "--gguf", str(file)]
    for step in ("brew install llama.cpp", "Copy b.gguf there (2 MB", llama_cli_command(source, file), "/clear"):
        assert step in told
    assert "--seed" not in told
    assert "--seed 7" in instructions(Path("a run"), replace(source, seed=7), file)


def test_special_tokens_are_copied_to_tokenizer_config() -> None:
    """Special tokens that only tokenizer.json has are added to tokenizer_config.json, where llama.cpp reads them."""
    listed = tokenizer_config_of(POCKET)["added_tokens_decoder"]
    assert (listed["5"]["content"], listed["5"]["special"]) == ("<|user|>", True)
    assert "id" not in listed["5"]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ({"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]}}, None),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}, None),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}}, False),
    ],
)
def test_the_prefix_space_is_stated_in_tokenizer_config(steps: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    """If the tokenizer adds no leading space, tokenizer_config.json says so, since llama.cpp adds one by default."""
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"byte_fallback": True}} | steps))
    assert tokenizer_config_of(tmp_path).get("add_prefix_space") is expected


# --- a real llama.cpp ------------------------------------------------------------------------------------------


def has_llama_cpp() -> bool:
    from importlib.util import find_spec

    return find_spec("llama_cpp") is not None and (llama_cpp.home() / llama_cpp.CONVERTER).is_file()


@pytest.fixture(scope="module")
def converted(trained_run: RunStore, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Path]:
    """Paths of a merged model and of the GGUF files made from it, by type."""
    if not has_llama_cpp():
        if os.environ.get("HARNESS_GGUF"):
            pytest.fail("HARNESS_GGUF is set, and llama.cpp is not set up: harness doctor --install-llama-cpp")
        pytest.skip("llama.cpp is not set up")
    folder = tmp_path_factory.mktemp("gguf")
    merged = merged_of(trained_run, folder)
    files = {kind: to_gguf(source_of(trained_run), merged, folder, GgufRequest(kind)) for kind in GgufType}
    return {"merged": merged} | files


def backends_of(converted: dict[Any, Path], kind: GgufType) -> Any:
    """Return two backends that answer prompts: PyTorch with the merged model, and llama.cpp with its GGUF file."""
    from harness.core.settings import Quantization
    from harness.engine.generation.backends import TorchBackend, open_gguf
    from harness.models.resolving import resolve
    from tests.studies.merges import loaded

    base = loaded(resolve(str(converted["merged"])), Quantization.NONE)
    ends = frozenset(base.model.generation_config.eos_token_id)
    return TorchBackend(base, base.model), open_gguf(converted[kind], base.tokenizer, ends, threads=1)


@pytest.mark.gguf
def test_llama_cpp_computes_the_merged_model(converted: dict[Any, Path], trained_run: RunStore) -> None:
    """With the f16 file, llama.cpp gives PyTorch's tokens and answers; logits differ by at most 0.1% of the largest."""
    from harness.engine.tokenization import render
    from harness.export.parity_record import questions

    run = trained_run.manifest()
    prompts = [question.prompt for question in questions(source_of(trained_run))]
    torch_player, opening = backends_of(converted, GgufType.F16)
    with opening as player:
        for prompt in prompts:
            assert player.same_tokens(prompt)
            ids = render(prompt.messages, player.tokenizer, ask=True)
            expected, found = torch_player.logits(ids), player.logits(ids)
            assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-3
        answers = [player.answers(prompts, run.suite.decoding), torch_player.answers(prompts, run.suite.decoding)]
    assert [a.text for a in answers[0]] == [a.text for a in answers[1]]
    for mine, other in zip(*answers, strict=True):
        assert mine.likelihood is not None
        assert other.likelihood is not None
        assert mine.likelihood.total == pytest.approx(other.likelihood.total, abs=0.02)


@pytest.mark.gguf
def test_parity_has_every_stage(trained_run: RunStore, converted: dict[Any, Path], capsys: Any) -> None:
    """`harness parity` compares each stage, from adapter to GGUF, with the one before, and stores this."""
    with inside(trained_run.root.parents[2]):
        assert main(["parity", str(trained_run.root), "lr"]) == 0
    assert "GGUF q4_k_m" in capsys.readouterr().out
    (parity,) = trained_run.parities()
    assert [stage.stage for stage in parity.stages] == list(Stage)
    far = {stage.stage: stage.distance for stage in parity.stages}
    assert far[Stage.ADAPTER] is None
    assert far[Stage.MERGED] is not None
    assert far[Stage.MERGED].largest <= 1e-3
    assert far[Stage.RELOADED] is not None
    assert far[Stage.RELOADED].largest == 0
    assert far[Stage.F16] is not None
    assert far[Stage.F16].largest <= 1e-3
    assert far[Stage.F16_LORA] is not None
    assert 0 < far[Stage.F16_LORA].largest <= 1e-3
    assert [stage.tokenised_alike for stage in parity.stages[3:]] == [4] * 5
    assert parity.stages[3].passed == parity.stages[0].passed


@pytest.mark.gguf
def test_chat_with_a_gguf_file(trained_run: RunStore, converted: dict[Any, Path], capsys: Any) -> None:
    """`harness chat --gguf` answers the prompt of a case as the run did, also with an adapter over the base's file."""
    record = next(record for record in trained_run.records() if record.settings)
    asked = next(case for case in trained_run.manifest().suite.cases if case.id in record.answers)
    with inside(trained_run.root.parents[2]):
        words = ["chat", str(trained_run.root), "lr", "--gguf", str(converted[GgufType.F16]), "--ask", asked.prompt]
        assert main(words) == 0
        alone = capsys.readouterr().out
        folder = trained_run.root / "exports" / "gguf-lora"
        assert main(["export", str(trained_run.root), "lr", "--to", "gguf", "--base-only", "--quant", "f16"]) == 0
        assert main(["export", str(trained_run.root), "lr", "--to", "gguf-lora"]) == 0
        (base,), (lora,) = folder.glob("*-f16.gguf"), folder.glob("*-lora.gguf")
        capsys.readouterr()
        words[4:5] = [str(base), "--lora", str(lora), "--lora", str(lora)]
        assert main(words) == 0
    answer = record.answers[asked.id][0].text
    assert answer in alone
    of_base, *others = capsys.readouterr().out.splitlines()[1:]
    assert answer not in of_base
    assert [line.partition(": ")[2] for line in others] == [answer] * 2
    with pytest.raises(EngineError, match="an adapter of another model"):
        llama_cpp_chat(base, Decoding(), [converted[GgufType.F16]])


@pytest.mark.gguf
def test_ollama_gets_the_tokens_of_the_run(trained_run: RunStore, converted: dict[Any, Path], capsys: Any) -> None:
    """`--to ollama` names the prompts for which llama.cpp's tokens of the rendered text are the run's: here all."""
    with inside(trained_run.root.parents[2]):
        assert main(["export", str(trained_run.root), "lr", "--to", "ollama", "--quant", "f16"]) == 0
    made = Path(capsys.readouterr().out.strip())
    count = len(trained_run.manifest().suite.cases)
    assert f"llama.cpp's tokens are the run's for {count} of them" in (made.parent / "export.json").read_text()
    assert '{{- "<|user|> " }}' in made.read_text()
    verify_manifest(made.parent)
