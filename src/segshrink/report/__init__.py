"""Reads the files of run folders and writes one offline HTML page about them; never imports torch."""

from segshrink.report.collect import Run, collect
from segshrink.report.page import build_report

__all__ = ["Run", "build_report", "collect"]
