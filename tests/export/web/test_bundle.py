"""Fetching what pages carry: only what was pinned."""

from __future__ import annotations

import importlib.util
import io
import json
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "web" / "bundle.py"


def test_another_package_than_the_pinned_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("bundle", SCRIPT)
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    locked = json.loads((SCRIPT.parent / "package-lock.json").read_text())["packages"]
    for name, parts in script.PARTS.items():
        version = locked[f"node_modules/{name}"]["version"]
        archive = tmp_path / name / "-" / f"{name}-{version}.tgz"
        archive.parent.mkdir(parents=True)
        with tarfile.open(archive, "w:gz") as files:
            for part in parts:
                files.addfile(tarfile.TarInfo(f"package/{part}"), io.BytesIO())
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", tmp_path.as_uri())
    with pytest.raises(ValueError, match="another checksum"):
        script.bundle(tmp_path / "vendor")
    assert list((tmp_path / "vendor").iterdir()) == []
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "nowhere").as_uri())
    with pytest.raises(OSError, match="nowhere"):
        script.bundle(tmp_path / "vendor")
