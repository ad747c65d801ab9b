"""Targets of `harness export --to KIND`, one module each.

To add one, see `harness.export.protocol`: a module here, a row in `harness.export.registry.EXPORTERS`, and a member of
`harness.core.export.ExportKind`.
"""
