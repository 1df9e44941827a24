"""The page that a distillation leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segshrink.workflows import web_page


def test_a_failing_export_is_said_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nat line 7")

    model = tmp_path / "model.onnx"
    model.write_bytes(b"network")
    monkeypatch.setattr(web_page, "export_web", fail)
    web_page.write_web_page(model, tmp_path / "map.html")
    assert "no such operator" in caplog.text
    assert "line 7" not in caplog.text


def test_a_page_that_is_newer_than_its_model_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, page = tmp_path / "model.onnx", tmp_path / "map.html"
    calls: list[Path] = []
    monkeypatch.setattr(web_page, "export_web", lambda _, path, **__: calls.append(path))
    for path in (model, page):
        path.write_bytes(b"content")
    os.utime(model, (1, 1))
    web_page.write_web_page(model, page)
    assert calls == []
    os.utime(page, (0, 0))
    web_page.write_web_page(model, page)
    assert calls == [page]
