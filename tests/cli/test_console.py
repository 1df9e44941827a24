"""Progress where no bar can move."""

from __future__ import annotations

import time

import pytest

from segshrink.cli import _console


def test_a_log_file_gets_lines_before_a_phase_ends(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_console, "LINE_EVERY", 0.01)
    written = ""
    with _console.progress_bar("train teacher") as advance:
        advance(3, 10, "epoch 2")
        while "epoch 2" not in written:
            written += capsys.readouterr().err
            time.sleep(0.01)
    assert "train teacher" in written
    assert "3/10" in written
    assert "\x1b" not in written


def test_a_short_phase_gets_its_last_line_only(capsys: pytest.CaptureFixture[str]) -> None:
    with _console.progress_bar("export") as advance:
        advance(1, 2)
        advance(2, 2)
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
