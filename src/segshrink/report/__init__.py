"""Reads the files of run folders and writes one offline HTML page about them; never imports torch."""

from segshrink.report.page import report
from segshrink.report.runs import Run, collect

__all__ = ["Run", "collect", "report"]
