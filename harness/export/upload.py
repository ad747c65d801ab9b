"""Uploads an exported folder to the Hugging Face Hub with its own client, which finds the user's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from harness.core.errors import ExportError
from harness.models.hub import hub_errors

CARD = "README.md"


@dataclass(frozen=True)
class Parcel:
    """The files and the card to upload, and the repository."""

    repository: str
    folder: Path
    card: str
    private: bool = True

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file() and path.name != CARD)


def listing(parcel: Parcel) -> str:
    """The files with their sizes, and the card, as text."""
    kind = "private" if parcel.private else "PUBLIC"
    rows = [f"  {path.stat().st_size:>14,}  {path.name}" for path in parcel.files]
    rows.append(f"  {len(parcel.card.encode()):>14,}  {CARD}")
    return "\n".join([f"To {parcel.repository} ({kind}):", *rows, "", parcel.card.rstrip()])


def send(parcel: Parcel, *, endpoint: str | None = None, token: str | None = None) -> str:
    """Upload everything in one commit, to a repository that is created if need be; returns its address.

    An existing repository keeps its files and its visibility. `endpoint` and `token` replace the Hub's address and the
    token that its client finds.

    Raises:
        ExportError: the Hub refuses the upload or cannot be reached; the repository is public and should not be, or
            holds another export.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(endpoint=endpoint, token=token)
    try:
        with hub_errors():
            made = api.create_repo(parcel.repository, private=parcel.private, exist_ok=True)
            _check_there(parcel, api.repo_info(parcel.repository))
            api.create_commit(parcel.repository, _operations(parcel), commit_message="Exported by qlora-harness")
    except (OSError, RuntimeError, HFValidationError) as error:
        raise _refused(parcel.repository, error) from error
    return str(made)


def _check_there(parcel: Parcel, there: Any) -> None:
    if parcel.private and there.private is False:
        remedy = "Name another --repo, or pass --public."
        raise ExportError(f"{parcel.repository} exists and is public", remedy=remedy)
    own = {path.name for path in parcel.files}
    others = sorted(name for file in there.siblings or () if (name := file.rfilename) not in own and _is_model(name))
    if others:
        # transformers applies an adapter to a model beside it, or to another model that the adapter names.
        what = f"{parcel.repository} holds {others[0]} of another export, and would be loaded as something else"
        raise ExportError(what, remedy="Name another --repo.")


def _is_model(name: str) -> bool:
    return any(map(partial(fnmatch, name), ("config.json", "adapter_*", "model*.safetensors*", "*.gguf")))


def _operations(parcel: Parcel) -> Sequence[Any]:
    from huggingface_hub import CommitOperationAdd

    card = CommitOperationAdd(CARD, parcel.card.encode("utf-8", "replace"))
    return [*(CommitOperationAdd(path.name, path) for path in parcel.files), card]


def _refused(repository: str, error: Exception) -> ExportError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        remedy = "Make a token with write access at https://huggingface.co/settings/tokens, then run: hf auth login"
        return ExportError(f"the Hub does not let you write to {repository}", remedy=remedy)
    if isinstance(error, ConnectionError) or status is None:
        return ExportError(f"{repository}: {error}", remedy="Check the name (owner/name) and the connection.")
    return ExportError(f"the Hub refused {repository}: {error}", remedy="Try again later.")
