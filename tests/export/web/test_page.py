"""The page as a file: whole, its own code only, escaped; what can't become one is refused in a sentence."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from segshrink.errors import FileError, ModelError
from segshrink.export.web import export_web, page
from segshrink.prediction.runtimes.onnx_parts import output_names
from segshrink.prediction.tiled import choose_tiling

from .conftest import describe, write_network


@pytest.fixture(scope="module")
def text(page_of) -> str:
    """The HTML of a page."""
    return str(page_of(resolution=0.3)[1].read_text(encoding="utf-8"))


def block(text: str, name: str) -> str:
    """Return what an element of data holds."""
    found = re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', text, re.DOTALL)
    assert found
    return found[1]


def test_the_network_lies_in_it_and_gives_logits_alone(text: str, page_of) -> None:
    network = gzip.decompress(base64.b64decode(block(text, "network")))
    assert output_names(network) == ["logits"]
    wasm = gzip.decompress(base64.b64decode(block(text, "binary")))
    assert wasm.startswith(b"\0asm")


def test_weights_beside_the_network_lie_in_it_too(page_of, tmp_path: Path) -> None:
    network, page = page_of()
    onnx.save(onnx.load(network), tmp_path / "tiny.onnx", save_as_external_data=True, location="w", size_threshold=0)
    other = export_web(tmp_path / "tiny.onnx", tmp_path / "map.html")
    first, second = (
        onnx.load_from_string(gzip.decompress(base64.b64decode(block(file.read_text(encoding="utf-8"), "network"))))
        for file in (page, other)
    )
    (expected,), (found,) = first.graph.initializer, second.graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(found), onnx.numpy_helper.to_array(expected))


def test_it_is_small_without_its_network(text: str) -> None:
    assert len(text) - len(block(text, "network")) < 5.4e6, "so that an int8 model of half a megabyte makes 6"


def test_it_cuts_scenes_as_predict_does(text: str) -> None:
    model = json.loads(block(text, "model"))
    tiling = choose_tiling(describe(), runtime="onnxruntime")
    assert model["tiling"] == {"tile": tiling.tile, "overlap": tiling.overlap, "stride": tiling.stride}
    assert model["resolution"] == 0.3
    assert model["classes"][2] == {"name": "roof", "color": "#D55E00"}


def test_only_its_own_script_may_run_and_names_are_text(text: str) -> None:
    script = text.rpartition("<script>")[2].rpartition("</script>")[0]
    expected = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert f"script-src 'sha256-{expected}' blob: 'wasm-unsafe-eval'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "connect-src data:;" in policy[1]
    assert "<b>open" not in text
    assert text.count("&lt;b&gt;open &amp; land") >= 2


def test_it_carries_the_licenses_of_what_it_carries(text: str) -> None:
    for name in ("Microsoft Corporation", "EOX IT Services", "Permission is hereby granted", "Esri"):
        assert name in text


def test_a_page_of_ours_is_replaced_and_no_other(page_of, tmp_path: Path) -> None:
    network, _ = page_of()
    path = tmp_path / "map.html"
    for _ in range(2):
        assert export_web(network, path) == path
    path.write_text("<p>mine</p>")
    with pytest.raises(FileError, match="was not written by segshrink"):
        export_web(network, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.html"]


def test_what_gives_no_logits_is_refused(page_of, tmp_path: Path) -> None:
    page_of()
    network = write_network(tmp_path / "shares.onnx", describe(), outputs=("probabilities",))
    with pytest.raises(ModelError, match=r"shares\.onnx gives probabilities, but a page needs logits"):
        export_web(network, tmp_path / "map.html")
    floats = onnx.load(write_network(tmp_path / "floats.onnx", describe()))
    floats.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    onnx.save(floats, tmp_path / "floats.onnx")
    with pytest.raises(ModelError, match=r"floats\.onnx takes floats"):
        export_web(tmp_path / "floats.onnx", tmp_path / "map.html")
    with pytest.raises(ModelError, match=r"map\.txt must end in \.html"):
        export_web(network, tmp_path / "map.txt")


def test_missing_parts_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(page._PARTS, "binary", "nowhere.wasm.gz")
    network = write_network(tmp_path / "tiny.onnx", describe())
    with pytest.raises(FileError, match=r"lacks .*make web"):
        export_web(network, tmp_path / "map.html")
    assert not (tmp_path / "map.html").exists()


def test_a_file_becomes_a_page_on_the_command_line_without_torch(page_of, tmp_path: Path) -> None:
    network, _ = page_of()
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from segshrink.cli import main\n"
        "sys.exit(main(['export', sys.argv[1], '--format', 'web', '--out', sys.argv[2]]))"
    )
    command = [sys.executable, "-c", code, str(network), str(tmp_path / "map.html")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "map.html" in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.html"]
