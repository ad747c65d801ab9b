"""Uploads an exported folder to the Hugging Face Hub. The Hub's client library finds the user's access token."""

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
class Upload:
    """The folder and model card to upload, and the repository to create."""

    repository: str
    folder: Path
    card: str
    private: bool = True

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if path.is_file() and path.name != CARD)


def listing(upload: Upload) -> str:
    """Describe an upload as text: the files with their sizes, and the model card."""
    kind = "private" if upload.private else "PUBLIC"
    rows = [f"  {path.stat().st_size:>14,}  {path.name}" for path in upload.files]
    rows.append(f"  {len(upload.card.encode()):>14,}  {CARD}")
    return "\n".join([f"To {upload.repository} ({kind}):", *rows, "", upload.card.rstrip()])


def send(upload: Upload, *, endpoint: str | None = None, token: str | None = None) -> str:
    """Upload files and model card in one commit, and return the repository's address.

    The repository is created if it does not exist. An existing repository keeps its other files and its visibility.
    `endpoint` and `token` override the Hub's address and the token that the client library finds.

    Raises:
        ExportError: the Hub refuses the upload or cannot be reached; the upload is private, but the repository exists
            and is public; or the repository contains another export.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(endpoint=endpoint, token=token)
    try:
        with hub_errors():
            made = api.create_repo(upload.repository, private=upload.private, exist_ok=True)
            _check_repository(upload, api.repo_info(upload.repository))
            api.create_commit(upload.repository, _operations(upload), commit_message="Exported by qlora-harness")
    except (OSError, RuntimeError, HFValidationError) as error:
        raise _refused(upload.repository, error) from error
    return str(made)


def _check_repository(upload: Upload, info: Any) -> None:
    if upload.private and info.private is False:
        remedy = "Name another --repo, or pass --public."
        raise ExportError(f"{upload.repository} exists and is public", remedy=remedy)
    own = {path.name for path in upload.files}
    others = sorted(name for file in info.siblings or () if (name := file.rfilename) not in own and _is_model(name))
    if others:
        # For example, transformers would apply an adapter to a merged model in the same repository.
        what = f"{upload.repository} holds {others[0]} of another export, and would be loaded as another model"
        raise ExportError(what, remedy="Name another --repo.")


def _is_model(name: str) -> bool:
    return any(map(partial(fnmatch, name), ("config.json", "adapter_*", "model*.safetensors*", "*.gguf")))


def _operations(upload: Upload) -> Sequence[Any]:
    from huggingface_hub import CommitOperationAdd

    card = CommitOperationAdd(CARD, upload.card.encode("utf-8", "replace"))
    return [*(CommitOperationAdd(path.name, path) for path in upload.files), card]


def _refused(repository: str, error: Exception) -> ExportError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        remedy = "Make a token with write access at https://huggingface.co/settings/tokens, then run `hf auth login`."
        return ExportError(f"the Hub does not let you write to {repository}", remedy=remedy)
    if isinstance(error, ConnectionError) or status is None:
        return ExportError(f"{repository}: {error}", remedy="Check the name (owner/name) and the connection.")
    return ExportError(f"the Hub refused {repository}: {error}", remedy="Try again later.")
