"""Download models from the Hugging Face Hub: choose the files, check the disk space, and explain the Hub's errors.

A revision is first resolved to its commit. The downloaded files must belong to that commit, which is recorded, so that
the checked model is the model that is trained. Small files are downloaded first, so that an unusable model causes an
error before its weights are downloaded.
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

from harness.core.errors import ModelError

SMALL = ("*.json", "*.model", "*.jinja", "*.txt")
"""Files of the configuration and of the tokenizer."""
WEIGHTS = "*.safetensors"
_TWICE = ("consolidated*", "adapter_model*")
"""Weight files that are not needed: copies of the weights in another layout, and adapters."""
_LARGEST_SMALL = 512 * 2**20
"""Largest size of one of these files in bytes. Files that are not read, such as a training's log, may be large."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SPARE = 2 * 10**9
"""Bytes that must stay free after a model has been downloaded."""


@dataclass(frozen=True)
class Listing:
    """The files of a model at one commit, with their sizes in bytes."""

    commit: str
    files: dict[str, int]


class Hub(Protocol):
    """Requests to the Hub, implemented by `HuggingFace`. The methods raise the errors of `huggingface_hub`."""

    def listing(self, repository: str, revision: str | None) -> Listing:
        """Return the files of a revision (None: the default branch).

        Raises:
            ConnectionError: the Hub cannot be reached.
        """
        ...

    def fetch(self, repository: str, revision: str | None, files: Sequence[str]) -> Path:
        """Download missing files to the Hub's cache. Return their folder, which is named after the commit."""
        ...

    def cached_folder(self, repository: str, revision: str | None) -> Path | None:
        """Return the folder of a revision in the Hub's local cache, or None. No request is sent to the Hub."""
        ...

    def free_bytes(self) -> int:
        """Return the free bytes on the disk of the Hub's cache."""
        ...


@dataclass(frozen=True)
class HuggingFace:
    """Access to the Hub through `huggingface_hub`, which has its own cache and finds the user's token."""

    def listing(self, repository: str, revision: str | None) -> Listing:
        from huggingface_hub import HfApi

        with hub_errors():
            found = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=20)
        return Listing(found.sha or "", {file.rfilename: file.size or 0 for file in found.siblings or ()})

    def fetch(self, repository: str, revision: str | None, files: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        with hub_errors():
            return Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))

    def cached_folder(self, repository: str, revision: str | None) -> Path | None:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            # Without a pattern, the client would also require files that the harness does not need. The needed files
            # are checked later.
            found = snapshot_download(
                repository, revision=revision, local_files_only=True, allow_patterns=["config.json"]
            )
        except LocalEntryNotFoundError:
            return None
        return Path(found)

    def free_bytes(self) -> int:
        from huggingface_hub.constants import HF_HUB_CACHE

        cache = Path(HF_HUB_CACHE).absolute()
        return shutil.disk_usage(next(folder for folder in (cache, *cache.parents) if folder.is_dir())).free


@contextmanager
def hub_errors() -> Iterator[None]:
    """Raise errors of the Hub and of the system unchanged, and all other errors as ConnectionError."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except (OSError, RuntimeError, HFValidationError):  # HfHubHTTPError is an OSError
        raise
    except Exception as error:
        # An error of the HTTP library (no reply or an incomplete one), which depends on the release of huggingface_hub.
        raise ConnectionError(str(error)) from error


def download(name: str, hub: Hub, check: Callable[[Path], None]) -> tuple[str, Path]:
    """Download `owner/name[@revision]` with its weights; return the repository's name and the folder.

    The folder is named after the commit. Before the weights are downloaded, `check` is called with the folder, which
    then has the small files such as the configuration. If the Hub cannot be reached, the cached folder is
    returned and `check` is not called.

    Raises:
        ModelError: there is no such model, access is refused, the disk has too little space, or the model has no
            safetensors files.
    """
    repository, revision = _parts(name)
    with _explained(name, repository, revision):
        listing = _listing(hub, repository, revision)
        if listing is None:
            return repository, _cached(hub, name, repository, revision)
        weights = _weights(repository, listing)
        small = _small(repository, listing)
        check(_same_commit(listing, hub.fetch(repository, revision, small)))
        _check_room(hub, repository, listing, weights)
        return repository, _same_commit(listing, hub.fetch(repository, revision, [*small, *weights]))


def download_description(name: str, hub: Hub) -> Path:
    """Download the configuration and tokenizer of `owner/name[@revision]` without its weights; return their folder.

    Raises:
        ModelError: there is no such model, or access is refused.
    """
    repository, revision = _parts(name)
    with _explained(name, repository, revision):
        listing = _listing(hub, repository, revision)
        if listing is None:
            return _cached(hub, name, repository, revision)
        return hub.fetch(repository, revision, _small(repository, listing))


def _same_commit(listing: Listing, folder: Path) -> Path:
    if folder.name != listing.commit:
        what = f"the model changed on the Hub during the download, from {listing.commit} to {folder.name}"
        raise ModelError(what, remedy="Run the same command again.")
    return folder


def _parts(name: str) -> tuple[str, str | None]:
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _listing(hub: Hub, repository: str, revision: str | None) -> Listing | None:
    """Return the files of a revision, or None if the Hub cannot be reached."""
    try:
        return hub.listing(repository, revision)
    except ConnectionError:
        return None


def _cached(hub: Hub, name: str, repository: str, revision: str | None) -> Path:
    found = hub.cached_folder(repository, revision)
    if found is None:
        what = f"there is no folder {name}, the Hub's cache has no such model, and the Hub cannot be reached (offline)"
        remedy = "Check the path or the connection, or use --model pocket, which needs no network."
        raise ModelError(what, remedy=remedy)
    return found


def _matching(listing: Listing, patterns: Sequence[str]) -> list[str]:
    """Return the matching files of the repository's top folder. Subfolders hold the model in other formats."""
    top = [file for file in listing.files if "/" not in file]
    return sorted(file for file in top if any(fnmatch.fnmatch(file, pattern) for pattern in patterns))


def _small(repository: str, listing: Listing) -> list[str]:
    """Return the files of the configuration and of the tokenizer.

    Raises:
        ModelError: one is too large to be one of them.
    """
    found = _matching(listing, SMALL)
    if large := next((file for file in found if listing.files[file] > _LARGEST_SMALL), None):
        what = f"{repository}: {large} has {listing.files[large] / 1e9:.1f} GB, too much for a configuration"
        raise ModelError(what, remedy="Name another model.")
    return found


def _weights(repository: str, listing: Listing) -> list[str]:
    found = [file for file in _matching(listing, [WEIGHTS]) if not _matching_any(file, _TWICE)]
    if found:
        return found
    if "adapter_config.json" in listing.files:
        remedy = "Name the base model on which it was trained; the harness trains its own adapters."
        raise ModelError(f"{repository} is an adapter, not a base model", remedy=remedy)
    if any(_matching_any(file, _PICKLES) for file in listing.files):
        what = f"{repository} has its weights only as pickles, which are not loaded because they can run code"
        remedy = (
            "Look for another revision (`NAME@refs/pr/N`) or another copy with .safetensors files. The Hub can convert "
            "the model: https://huggingface.co/spaces/safetensors/convert"
        )
        raise ModelError(what, remedy=remedy)
    remedy = "Name a repository that holds config.json, the tokenizer and .safetensors files."
    raise ModelError(f"{repository} holds no .safetensors file, so it has no weights", remedy=remedy)


def _matching_any(file: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def _check_room(hub: Hub, repository: str, listing: Listing, weights: Sequence[str]) -> None:
    cached = hub.cached_folder(repository, listing.commit)
    missing = [file for file in weights if cached is None or not (cached / file).is_file()]
    needed, free = sum(listing.files[file] for file in missing), hub.free_bytes()
    if missing and needed + _SPARE > free:
        what = f"{repository} needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free where the Hub's cache is"
        remedy = (
            "Free some space (`hf cache ls` lists downloaded models, `harness clean` shows the harness's cache), "
            "or set HF_HOME to a folder on a larger disk."
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
    """Convert an error of the Hub's client to a `ModelError` with a remedy."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _gated(repository)
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(f"{repository} has no revision {revision!r}", remedy="Check the revision after the @.")
    if isinstance(error, errors.RepositoryNotFoundError):
        remedy = "Check the spelling; a private model needs `hf auth login` first."
        return ModelError(f"there is no folder {name}, and the Hub has no model {repository}", remedy=remedy)
    if isinstance(error, errors.HFValidationError):
        remedy = "Name `pocket`, a folder with config.json and .safetensors files, or a Hub model such as owner/name."
        return ModelError(f"there is no folder {name}, and no model of the Hub can have this name", remedy=remedy)
    if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError):
        remedy = "Check the connection, then run the same command again. It keeps the files that were downloaded."
        return ModelError(f"{name}: the connection to the Hub was lost", remedy=remedy)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        remedy = "Free some space (`harness clean` shows what the cache holds), then run the same command again."
        return ModelError(f"the disk is full: {name} does not fit into the Hub's cache", remedy=remedy)
    return ModelError(f"{name} could not be downloaded: {error}", remedy="Try again later, or name a folder instead.")


def _gated(repository: str) -> ModelError:
    remedy = (
        f"1. Open https://huggingface.co/{repository}, log in, and accept the licence. The page shows when access is "
        "granted, which may take from minutes to a day.\n"
        "2. Create a token with read permission at https://huggingface.co/settings/tokens\n"
        "3. Run: hf auth login   (on Colab: !hf auth login, or put the token under Secrets as HF_TOKEN)"
    )
    return ModelError(f"{repository} is gated: its licence must be accepted first", remedy=remedy)
