"""What tells scenes apart: their bytes and companions, their addresses and what servers say."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from segshrink.imagery.scenes import open_scene
from segshrink.prediction.scenes.plan import local_identity, plain_name, remote_identity


class Server(ThreadingHTTPServer):
    """Serves one file, whatever is asked for; only GET, as signed URLs allow."""

    content = b"one"
    tag: str | None = '"1"'


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.send_response(206)
        self.send_header("Content-Range", f"bytes 0-0/{len(self.server.content)}")
        self.send_header("Content-Length", "1")
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        self.end_headers()
        self.wfile.write(self.server.content[:1])

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_query_port_and_the_servers_version_count(server: Server) -> None:
    address = f"http://127.0.0.1:{server.server_port}/get"
    first = remote_identity(f"{address}?scene=1")
    assert first["bytes"] == 3
    assert first == remote_identity(f"{address}?scene=1")
    assert first != remote_identity(f"{address}?scene=2")
    server.tag = '"2"'
    assert first != remote_identity(f"{address}?scene=1")
    server.tag, server.content = '"1"', b"four"
    assert first != remote_identity(f"{address}?scene=1")


def test_ports_are_told_apart_without_a_server() -> None:
    assert remote_identity("s3://one/a.tif") == remote_identity("s3://one/a.tif")
    assert remote_identity("http://127.0.0.1:1/a.tif")["url"] == "http://127.0.0.1:1/a.tif"
    assert remote_identity("http://127.0.0.1:1/a.tif") != remote_identity("http://127.0.0.1:2/a.tif")


@pytest.mark.parametrize(
    ("signature", "other"),
    [
        ("X-Amz-Signature=SECRET&X-Amz-Date=20260101", "X-Amz-Signature=SECRET2&X-Amz-Date=20270101"),
        ("Expires=5&Signature=SECRET&Key-Pair-Id=K", "Expires=6&Signature=SECRET2&Key-Pair-Id=K"),
        ("sv=2022&se=2026-01-01&sr=b&sp=r&sig=SECRET", "sv=2022&se=2027-01-01&sr=b&sp=r&sig=SECRET2"),
        ("access_token=SECRET", "access_token=SECRET2"),
        ("apikey=SECRET", "api_key=SECRET2"),
    ],
)
def test_signatures_neither_count_nor_are_recorded(signature: str, other: str) -> None:
    address = "az://user:SECRET@box/a.tif?item=7"
    first = remote_identity(f"{address}&{signature}")
    assert first == remote_identity(f"{address}&{other}") == remote_identity("az://box/a.tif?item=7")
    assert first != remote_identity(f"az://box/a.tif?item=8&{signature}")
    assert "SECRET" not in json.dumps(first)


def test_azures_short_keys_count_without_a_signature() -> None:
    assert remote_identity("az://box/a.tif?se=1") != remote_identity("az://box/a.tif?se=2")


def test_scenes_of_one_name_size_and_time_differ_by_their_bytes(tmp_path: Path) -> None:
    found = []
    for folder, content in (("a", b"x" * 9), ("b", b"y" * 9), ("c", b"x" * 9)):
        path = tmp_path / folder / "s.tif"
        path.parent.mkdir()
        path.write_bytes(content)
        os.utime(path, ns=(10**18, 10**18))
        found.append(local_identity(path, [str(path)]))
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_a_virtual_scenes_sources_and_masks_count_but_not_statistics(tmp_path: Path) -> None:
    scene, source, mask = (tmp_path / name for name in ("s.vrt", "tile.tif", "s.vrt.msk"))
    scene.write_text("<VRTDataset/>")
    source.write_bytes(b"one")
    files = [str(scene), str(source)]
    first = local_identity(scene, files)
    (tmp_path / "s.vrt.aux.xml").write_text("statistics of a viewer")
    assert local_identity(scene, [*files, f"{scene}.aux.xml"]) == first
    mask.write_bytes(b"mask")
    assert local_identity(scene, [*files, str(mask)]) != first
    source.write_bytes(b"three")
    assert local_identity(scene, files) != first


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Gelände 1.tif", "Gelände 1.tif"),
        ("場所\u3000１.tif", "場所\u3000１.tif"),
        (os.fsdecode("Gelände.tif".encode("latin-1")), "Gelände.tif"),
        ("a\nb\x1b[31m.tif", "a_b_[31m.tif"),
        ("a\udc00b", "a_b"),
    ],
)
def test_names_of_results_can_be_read_by_every_program(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("name", ["s.png", "s.jpg", "s.tif"])
def test_a_picture_is_told_with_what_says_where_it_lies(tmp_path: Path, name: str) -> None:
    scene = tmp_path / name
    Image.new("RGB", (8, 8)).save(scene)
    world = scene.with_suffix(f".{name[2]}{name[-1]}w")
    for opened in ([str(scene)], [str(scene), str(world)]):
        with open_scene(scene) as found:
            assert sorted(found.files) == sorted(opened)
        world.write_text("1\n0\n0\n-1\n0\n0\n")
