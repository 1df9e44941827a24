"""Scenes at addresses of the web."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from segshrink.errors import FileError
from segshrink.imagery.scenes import open_scene
from segshrink.tiling import Window

Paint = Callable[..., Path]
RGB = np.random.default_rng(7).integers(1, 255, (70, 90, 3), dtype=np.uint8)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Serve the temporary folder from a process of its own: GDAL waits for it without giving Python a turn."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"port (\d+)", server.stdout.readline())
        assert found is not None
        try:
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            server.terminate()


def test_a_url_is_read(paint: Paint, address: str) -> None:
    paint("a scene.tif", RGB)

    with open_scene(f"{address}/a%20scene.tif") as scene:
        assert scene.name == "a scene"
        np.testing.assert_array_equal(scene.read(Window(10, 20, 30, 40))[0], RGB[10:40, 20:60])
    with pytest.raises(FileError, match=r"missing\.tif can't be read as an image .*check the address"):
        open_scene(f"{address}/missing.tif")
