"""The Hugging Face Hub: which files of a model are wanted, whether there is room for them, and what a refusal means.

A revision is turned into its commit first, and what is fetched is held to that commit, which is recorded: what is
trained is what was checked. Small files come first, so that a model that cannot be used is refused before its weights
are fetched.
"""

from __future__ import annotations

import errno
import fnmatch
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.errors import ModelError

SMALL = ("*.json", "*.model", "*.jinja", "*.txt")
"""Configuration and tokenizer."""
WEIGHTS = "*.safetensors"
_TWICE = ("consolidated*", "adapter_model*")
"""The same weights in their maker's own layout, and adapters: not for transformers to load as a base."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SPARE = 2 * 10**9
"""Bytes that stay free when a model has been fetched."""


@dataclass(frozen=True)
class Listing:
    """A model's files at one commit, with their sizes in bytes."""

    commit: str
    files: dict[str, int]


class Hub(Protocol):
    """What is asked of the Hub; `HuggingFace` asks the real one. Errors are those of `huggingface_hub`."""

    def listing(self, repository: str, revision: str | None) -> Listing:
        """The files of a revision (None: the default branch); ConnectionError where the Hub cannot be reached."""
        ...

    def fetch(self, repository: str, revision: str | None, files: Sequence[str]) -> Path:
        """The folder with these files, fetched unless they are there; it is called as the commit is."""
        ...

    def kept(self, repository: str, revision: str | None) -> Path | None:
        """The folder where a revision lies from an earlier time, as its commit is called; the Hub is not asked."""
        ...

    def room(self) -> int:
        """Bytes that are free where models are kept."""
        ...


@dataclass(frozen=True)
class HuggingFace:
    """The Hub through its own client, which has its own cache and finds the user's token by itself."""

    def listing(self, repository: str, revision: str | None) -> Listing:
        from huggingface_hub import HfApi

        with answered():
            found = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=20)
        return Listing(found.sha or "", {file.rfilename: file.size or 0 for file in found.siblings or ()})

    def fetch(self, repository: str, revision: str | None, files: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        with answered():
            return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))

    def kept(self, repository: str, revision: str | None) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            # Without a pattern, what is not wanted would be said to be missing; what is wanted is looked for later.
            found = snapshot_download(
                repository, revision=revision, local_files_only=True, allow_patterns=["config.json"]
            )
        except LocalEntryNotFoundError:
            return None
        return Path(found)

    def room(self) -> int:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = Path(HF_HUB_CACHE).absolute()
        return shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free


@contextmanager
def answered() -> Iterator[None]:
    """Refusals of the Hub and of the system pass; whatever else is raised says that no answer came, or half of one."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, RuntimeError, HFValidationError):  # HfHubHTTPError is an OSError
        raise
    except Exception as error:
        # Of the library below, which is another one in every other release.
        raise ConnectionError(str(error)) from error


def fetched(name: str, hub: Hub, check: Callable[[Path], None]) -> tuple[str, Path]:
    """The repository and the folder of `owner/name[@revision]`, its weights among the files; the folder is called as
    the commit is. `check` is shown the folder while it has only the small files.

    Raises:
        ModelError: there is no such model, it may not be had, there is no room, or it holds no safetensors.
    """
    repository, revision = _parts(name)
    with _explained(name, repository, revision):
        listing = _listing(hub, repository, revision)
        if listing is None:
            return repository, _kept(hub, name, repository, revision)
        weights = _weights(repository, listing)
        small = _matching(listing, SMALL)
        check(_held_to(listing, hub.fetch(repository, revision, small)))
        _check_room(hub, repository, listing, weights)
        return repository, _held_to(listing, hub.fetch(repository, revision, [*small, *weights]))


def described(name: str, hub: Hub) -> Path:
    """The folder with the configuration and tokenizer of `owner/name[@revision]`, without its weights.

    Raises:
        ModelError: there is no such model, or it may not be had.
    """
    repository, revision = _parts(name)
    with _explained(name, repository, revision):
        listing = _listing(hub, repository, revision)
        if listing is None:
            return _kept(hub, name, repository, revision)
        return hub.fetch(repository, revision, _matching(listing, SMALL))


def _held_to(listing: Listing, folder: Path) -> Path:
    if folder.name != listing.commit:
        what = f"the model changed on the Hub while it was fetched: {listing.commit} became {folder.name}"
        raise ModelError(what, remedy="Run the same command again.")
    return folder


def _parts(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _listing(hub: Hub, repository: str, revision: str | None) -> Listing | None:
    """None where the Hub cannot be reached."""
    try:
        return hub.listing(repository, revision)
    except ConnectionError:
        return None


def _kept(hub: Hub, name: str, repository: str, revision: str | None) -> Path:
    found = hub.kept(repository, revision)
    if found is None:
        what = f"{name} is no folder here, is not in the Hub's cache, and the Hub cannot be reached (offline)"
        remedy = "Check the path or the connection, or use --model pocket, which needs no network."
        raise ModelError(what, remedy=remedy)
    return found


def _matching(listing: Listing, patterns: Sequence[str]) -> list[str]:
    """Files of the top folder alone: what lies deeper are other formats of the same model."""
    top = [file for file in listing.files if "/" not in file]
    return sorted(file for file in top if any(fnmatch.fnmatch(file, pattern) for pattern in patterns))


def _weights(repository: str, listing: Listing) -> list[str]:
    found = [file for file in _matching(listing, [WEIGHTS]) if not _matching_any(file, _TWICE)]
    if found:
        return found
    if "adapter_config.json" in listing.files:
        remedy = "Name the base model that it was trained on; the harness trains adapters of its own."
        raise ModelError(f"{repository} is an adapter, not a base model", remedy=remedy)
    if any(_matching_any(file, _PICKLES) for file in listing.files):
        what = f"{repository} has its weights only as pickles, which can run code, and they are not loaded"
        remedy = (
            "Look for another revision (`NAME@refs/pr/N`) or another copy with .safetensors files; its page on the Hub "
            "can make one: https://huggingface.co/spaces/safetensors/convert"
        )
        raise ModelError(what, remedy=remedy)
    remedy = "A base model's repository holds config.json, the tokenizer and .safetensors files."
    raise ModelError(f"{repository} holds no .safetensors file, so no weights", remedy=remedy)


def _matching_any(file: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def _check_room(hub: Hub, repository: str, listing: Listing, weights: Sequence[str]) -> None:
    kept = hub.kept(repository, listing.commit)
    missing = [file for file in weights if kept is None or not (kept / file).is_file()]
    needed, free = sum(listing.files[file] for file in missing), hub.room()
    if missing and needed + _SPARE > free:
        what = f"{repository} takes {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where models are kept"
        remedy = (
            "Free some space (`hf cache ls` lists the models that are kept, `harness clean` what the harness holds), "
            "or let HF_HOME name a folder on a larger disk."
        )
        raise ModelError(what, remedy=remedy)


@contextmanager
def _explained(name: str, repository: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, RuntimeError, HFValidationError) as error:
        raise _refusal(name, repository, revision, error) from error


def _refusal(name: str, repository: str, revision: str | None, error: Exception) -> ModelError:
    """What the Hub's client said, in words that say what to do."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _gated(repository)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{repository} has no revision {revision!r}", remedy="Check the name behind the @.")
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = "Check the spelling; a private model needs `hf auth login` first."
        return ModelError(f"there is no folder {name}, and the Hub has no model {repository}", remedy=remedy)
    if isinstance(error, errors.HFValidationError):
        remedy = "Name `pocket`, a folder with config.json and .safetensors files, or a Hub model such as owner/name."
        return ModelError(f"there is no folder {name}, and no model of the Hub can be called that", remedy=remedy)
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        remedy = "Check the connection, then run the same command again: what was fetched is kept."
        return ModelError(f"{name}: the connection to the Hub was lost", remedy=remedy)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        remedy = "Free some space (`harness clean` tells what the harness holds), then run the same command again."
        return ModelError(f"the disk is full: {name} does not fit into the Hub's cache", remedy=remedy)
    return ModelError(f"{name} could not be fetched: {error}", remedy="Try again later, or name a folder instead.")


def _gated(repository: str) -> ModelError:
    remedy = (
        f"1. Open https://huggingface.co/{repository}, log in, and accept its licence; the page then says when "
        "access is granted, which may take from minutes to a day.\n"
        "2. Make a token with the right to read at https://huggingface.co/settings/tokens\n"
        "3. Run: hf auth login   (on Colab: !hf auth login, or put the token under Secrets as HF_TOKEN)"
    )
    return ModelError(f"{repository} is gated: its licence must be accepted first", remedy=remedy)
