"""Report: a run folder becomes one self-contained page with plots, pictures and videos."""

from worldmodels.report.page import MAX_BYTES, build_report

__all__ = ["MAX_BYTES", "build_report"]
