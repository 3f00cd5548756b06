"""Pages: the report of a run and every other page, each one file that needs no network."""

from worldmodels.pages.findings import MAX_BYTES
from worldmodels.pages.report import build_report

__all__ = ["MAX_BYTES", "build_report"]
