"""Tests of base models that are made of GGUF files, with a conversion that only writes a few files."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from harness.core.errors import ModelError, StoreError
from harness.core.hashing import file_digest
from harness.models import smollm2
from harness.models.foreign_files import read_object
from harness.models.gguf import Header
from harness.models.gguf_bases import Conversions, convert
from harness.models.resolving import POCKET, check_name, check_same, find_description, resolve
from harness.models.token_check import views_named
from harness.storage.cache import Cache
from harness.suites import load_suite
from tests.models.test_gguf import LLAMA, TENSORS
from tests.support.gguf_files import header

SUITES = Path(__file__).parents[2] / "suites"


@dataclass
class Fake:
    """A converter that copies the pocket model, and a download that copies `file`. Both count their calls."""

    file: Path | None = None
    converted: list[Path] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    fetched: int = 0

    def convert(self, file: Path, header: Header, folder: Path) -> None:
        self.converted.append(file)
        shutil.copytree(POCKET, folder, dirs_exist_ok=True)

    def fetch(self, folder: Path) -> Path:
        self.fetched += 1
        assert self.file
        return Path(shutil.copy(self.file, folder / "small.gguf"))

    def conversions(self, folder: Path) -> Conversions:
        content = file_digest(self.file) if self.file else smollm2.FILE
        return Conversions(Cache(folder / "cache"), self.messages.append, self.convert, self.fetch, content)


def gguf_file(folder: Path, name: str = "model.gguf", kind: int = 3, **changed: str | int) -> Path:
    path = folder / name
    path.write_bytes(header(LLAMA | changed, TENSORS, kind=kind))
    return path


def test_a_gguf_file_is_converted_once(tmp_path: Path) -> None:
    """The first run with a GGUF file converts it into the cache; later runs, also of a copy of the file, do not."""
    fake, file = Fake(), gguf_file(tmp_path)
    first = resolve(str(file), conversions=fake.conversions(tmp_path))
    copy = file.rename(tmp_path / "renamed.bin")
    second = resolve(str(copy), conversions=fake.conversions(tmp_path))
    assert fake.converted == [file]
    assert len(fake.messages) == 1
    assert (first.name, second.name) == ("model.gguf", "renamed.bin")
    assert (first.path, first.digest) == (second.path, second.digest)
    assert Path(first.path).parent == tmp_path / "cache" / "converted"


def test_a_converted_file_is_described_by_what_was_made_of_it(tmp_path: Path) -> None:
    """Once a file is converted, its description has the end tokens with which a run stops generation."""
    fake, file = Fake(), gguf_file(tmp_path)
    assert find_description(str(file), conversions=fake.conversions(tmp_path)).tokenizer is None
    made = resolve(str(file), conversions=fake.conversions(tmp_path))
    found = find_description(str(file), conversions=fake.conversions(tmp_path))
    assert found.tokenizer == Path(made.path)
    assert found.config == read_object(Path(made.path) / "config.json")


def test_rows_are_shown_before_any_run(tmp_path: Path) -> None:
    """To show rows as the model gets them, a GGUF file is converted, since its tokenizer is then known."""
    fake, file = Fake(), gguf_file(tmp_path)
    suite = load_suite(SUITES / "workshop")
    turns, views, _ = views_named(suite, [512], str(file), 1, conversions=fake.conversions(tmp_path))
    assert (turns.end_text, len(views), fake.converted) == ("</s>", 2, [file])


def test_the_digest_depends_on_the_file_only(tmp_path: Path) -> None:
    """Files with other content are other models; the digest of a model does not depend on the converted files."""
    fake = Fake()
    one = resolve(str(gguf_file(tmp_path, "a.gguf")), conversions=fake.conversions(tmp_path / "1"))
    again = resolve(str(gguf_file(tmp_path, "a.gguf")), conversions=Fake().conversions(tmp_path / "2"))
    other = resolve(str(gguf_file(tmp_path, "b.gguf", kind=2)), conversions=fake.conversions(tmp_path / "1"))
    assert one.digest == again.digest != other.digest


def test_a_damaged_conversion_is_made_again(tmp_path: Path) -> None:
    """If a file of a converted model has changed, the GGUF file is converted again."""
    fake, file = Fake(), gguf_file(tmp_path)
    made = resolve(str(file), conversions=fake.conversions(tmp_path))
    (Path(made.path) / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(StoreError, match=r"config\.json is missing, or has changed"):
        check_same(made)
    resolve(str(file), conversions=fake.conversions(tmp_path))
    assert len(fake.converted) == 2
    check_same(made)


def test_the_remedy_for_a_deleted_conversion(tmp_path: Path) -> None:
    """If the cache was emptied after a run, the error says to run the same command again."""
    fake = Fake()
    made = resolve(str(gguf_file(tmp_path)), conversions=fake.conversions(tmp_path))
    shutil.rmtree(made.path)
    with pytest.raises(ModelError) as caught:
        check_same(made)
    assert "the same `harness run` again" in caught.value.remedy


def test_a_failed_conversion_leaves_nothing(tmp_path: Path) -> None:
    """If a conversion fails, the cache has no model, and no temporary folder."""

    def broken(_file: Path, _header: Header, folder: Path) -> None:
        (folder / "half").write_text("x", encoding="utf-8")
        raise ModelError("broken", remedy="none")

    conversions = Conversions(Cache(tmp_path / "cache"), convert=broken)
    with pytest.raises(ModelError, match="broken"):
        resolve(str(gguf_file(tmp_path)), conversions=conversions)
    assert [path.name for path in (tmp_path / "cache" / "converted").iterdir()] == [".lock"]


def test_a_file_that_was_cut_is_named_as_incomplete(tmp_path: Path) -> None:
    """A GGUF file with fewer bytes than its header describes is not converted, and the remedy is another download."""
    file = gguf_file(tmp_path)
    with pytest.raises(ModelError, match=r"is not complete: it has [\d,]+ bytes") as caught:
        resolve(str(file), conversions=Conversions(Cache(tmp_path / "cache")))
    assert caught.value.remedy == "Download or copy the file again."


@pytest.mark.parametrize(
    ("kind", "weights", "noted"), [(3, "Q4_1, dequantised", True), (1, "F16, from a GGUF file", False)]
)
def test_the_model_says_what_its_weights_have_been_through(
    tmp_path: Path, kind: int, weights: str, noted: bool
) -> None:
    """The reference to the model names the type of the weights; if they were quantised, reports have a note."""
    made = resolve(str(gguf_file(tmp_path, kind=kind)), conversions=Fake().conversions(tmp_path))
    assert made.weights == weights
    assert bool(made.note) == noted
    assert not made.toy


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"split.count": 2}, "one of 2 parts"),
        ({"tokenizer.chat_template": ""}, "has no chat template"),
        ({"llama.rope.scaling.type": "yarn"}, "RoPE"),
        ({"general.architecture": ""}, "holds no model"),
    ],
    ids=["part", "template", "rope", "nothing"],
)
def test_files_that_are_refused_before_they_are_converted(
    tmp_path: Path, changed: dict[str, str | int], message: str
) -> None:
    """A GGUF file that cannot be a base model is refused by its header, by `run` and by `plan`, with a remedy."""
    file, fake = gguf_file(tmp_path, **changed), Fake()
    for refuse in (check_name, find_description, lambda name: resolve(name, conversions=fake.conversions(tmp_path))):
        with pytest.raises(ModelError) as caught:
            refuse(str(file))
        assert message in caught.value.message
        assert caught.value.remedy
    assert fake.converted == []


def test_a_file_that_transformers_cannot_read_is_refused(tmp_path: Path) -> None:
    """If the process that converts a file fails, its message is the error, and there is no traceback."""
    conversions = Conversions(Cache(tmp_path / "cache"), convert=convert)
    file = gguf_file(tmp_path, **{"general.architecture": "nonsense"})
    file.write_bytes(file.read_bytes() + bytes(10_000))
    with pytest.raises(ModelError) as caught:
        resolve(str(file), conversions=conversions)
    assert "transformers cannot read" in caught.value.message
    assert "\n" not in caught.value.message


def test_the_plan_needs_no_conversion(tmp_path: Path) -> None:
    """A GGUF file that was not converted yet gives the sizes of the model, but no tokenizer; then also that."""
    fake, file = Fake(), gguf_file(tmp_path)
    conversions = fake.conversions(tmp_path)
    before = find_description(str(file), conversions=conversions)
    assert (before.config["hidden_size"], before.tokenizer) == (64, None)
    assert "Weights: Q4_1, dequantised." in before.remarks
    made = resolve(str(file), conversions=conversions)
    assert find_description(str(file), conversions=conversions).tokenizer == Path(made.path)


# --- smollm2 ----------------------------------------------------------------------------------------------------------


def test_smollm2_is_downloaded_once(tmp_path: Path) -> None:
    """The model `smollm2` is downloaded and converted for the first run, and taken from the cache by later runs."""
    fake = Fake(gguf_file(tmp_path))
    made = [resolve("smollm2", conversions=fake.conversions(tmp_path)) for _ in range(2)]
    assert (fake.fetched, len(fake.converted)) == (1, 1)
    assert made[0] == made[1]
    assert (made[0].name, made[0].toy) == ("smollm2", False)
    assert "do not copy these settings to other models" in made[0].note


def test_smollm2_is_planned_without_a_download(tmp_path: Path) -> None:
    """`harness plan` knows the sizes of `smollm2` before its download."""
    fake = Fake()
    found = find_description("smollm2", conversions=fake.conversions(tmp_path))
    assert (found.config["hidden_size"], found.tokenizer, fake.fetched) == (576, None, 0)
    assert smollm2.NOTE in found.remarks
