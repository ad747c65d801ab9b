"""`--to hub`: the adapter or the merged model with a model card, sent to a repository of the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from harness.core.export import ExportKind, ExportRecord
from harness.export.adapter import export_adapter
from harness.export.card import card, evidence
from harness.export.exporter import Exporter, ExportRequest, option
from harness.export.folders import RECORD
from harness.export.merged import MergeOptions, export_merged
from harness.export.upload import Parcel, listing, send
from harness.storage.records import read_record


@dataclass(frozen=True)
class HubOptions(MergeOptions):
    repo: str = field(
        default="", metadata=option("Repository on the Hub, for --to hub.", metavar="OWNER/NAME", required=True)
    )
    what: ExportKind = field(
        default=ExportKind.ADAPTER,
        metadata=option("What to send to the Hub.", choices=(ExportKind.ADAPTER, ExportKind.MERGED)),
    )
    public: bool = field(default=False, metadata=option("Make the new repository of --to hub public."))
    dry_run: bool = field(default=False, metadata=option("Show what --to hub would send, and send nothing."))


def _make(request: ExportRequest, options: HubOptions) -> str:
    """The address of the repository; with `dry_run` the list of files and the card."""
    made = _folder(request, options)
    record = read_record(made / RECORD, ExportRecord)
    text = card(request.source, record, evidence(request.source, request.store.results()), options.repo)
    parcel = Parcel(options.repo, made, text, private=not options.public)
    return listing(parcel) if options.dry_run else send(parcel)


def _folder(request: ExportRequest, options: HubOptions) -> Path:
    if options.what is ExportKind.ADAPTER:
        return export_adapter(request)
    return export_merged(request, options, output=request.output)


EXPORTER = Exporter(
    ExportKind.HUB,
    "the adapter or the merged model with a model card, sent to a repository that is private unless --public",
    HubOptions,
    _make,
)
