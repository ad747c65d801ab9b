"""`harness export --to hub`: uploads the adapter or the merged model, with a model card, to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.core.export import ExportKind, ExportRecord
from harness.export.model_card import card, evidence
from harness.export.output_folders import RECORD
from harness.export.protocol import Exporter, ExportRequest, option
from harness.export.source import Source, check_mergeable
from harness.export.targets.adapter import export_adapter
from harness.export.targets.merged import MergeOptions, export_merged
from harness.export.upload import Upload, listing, send
from harness.storage.records import read_record


@dataclass(frozen=True)
class HubOptions(MergeOptions):
    """Command-line options of `--to hub`."""

    repo: str = field(
        default="", metadata=option("Repository on the Hub (only with --to hub).", metavar="OWNER/NAME", required=True)
    )
    what: ExportKind = field(
        default=ExportKind.ADAPTER,
        metadata=option(
            "Which export to upload (only with --to hub).", choices=(ExportKind.ADAPTER, ExportKind.MERGED)
        ),
    )
    public: bool = field(default=False, metadata=option("Make the new repository public (only with --to hub)."))
    dry_run: bool = field(
        default=False, metadata=option("Show the files and the model card without uploading (only with --to hub).")
    )


def _make(request: ExportRequest, options: HubOptions) -> str:
    """Upload the export and return the repository's address; with `dry_run`, return the list of files and the card."""
    made = _folder(request, options)
    record = read_record(made / RECORD, ExportRecord)
    text = card(request.source, record, evidence(request.source, request.store.results()), options.repo)
    upload = Upload(options.repo, made, text, private=not options.public)
    return listing(upload) if options.dry_run else send(upload)


def _folder(request: ExportRequest, options: HubOptions) -> Path:
    if options.what is ExportKind.ADAPTER:
        return export_adapter(request)
    return export_merged(request, options, output=request.output)


def _check(source: Source, options: HubOptions) -> None:
    if options.what is ExportKind.MERGED:
        check_mergeable(source.variant)


EXPORTER = Exporter(
    ExportKind.HUB,
    "the adapter or the merged model with a model card, uploaded to a repository that is private unless --public",
    HubOptions,
    _make,
    _check,
)
