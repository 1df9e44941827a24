"""The page that a distillation leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segshrink.workflows import web_page

from ..export.web.conftest import describe, write_network


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


def test_a_page_stays_until_its_model_is_another(tmp_path: Path) -> None:
    """Whatever the clock says: it may have been set back between the two."""
    model, page = write_network(tmp_path / "model.onnx", describe()), tmp_path / "map.html"
    web_page.write_web_page(model, page)
    first = page.stat()
    os.utime(page, (0, 0))
    web_page.write_web_page(model, page)
    assert page.stat().st_ino == first.st_ino
    write_network(model, describe(bands=4))
    os.utime(model, (0, 0))
    web_page.write_web_page(model, page)
    assert page.stat().st_ino != first.st_ino
