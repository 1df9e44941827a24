"""Reads the files of run folders and writes one offline HTML page about them; never imports torch."""

from segshrink.report.page import build_report
from segshrink.report.runs import Run, collect

__all__ = ["Run", "build_report", "collect"]
