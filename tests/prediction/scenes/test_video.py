"""Videos are predicted frame by frame, as scenes are: whole or not at all, once, and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from segshrink import build_model, export_onnx
from segshrink.classes import ClassMap
from segshrink.errors import ConfigError, FileError, UsageError
from segshrink.imagery.display import overlaid
from segshrink.imagery.video import Frame, Video, VideoWriter
from segshrink.prediction import Predictor
from segshrink.prediction.scenes import SceneOptions, predict_scenes

pytest.importorskip("av")

CLASSES = ClassMap.build([("dark", "#303030", None), ("bright", "#FFFFFF", None)])
ONE = SceneOptions(threads=1)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = build_model("unet", CLASSES, options={"width": 2, "depth": 2})
    return export_onnx(model, tmp_path_factory.mktemp("model") / "m.onnx")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Five frames, in each of which another quarter is bright."""
    with VideoWriter(tmp_path / "clip.mp4", height=96, width=128, rate=Fraction(10)) as video:
        for number in range(5):
            pixels = np.full((96, 128, 3), 40, np.uint8)
            pixels[48 * (number % 2) :][:48, 64 * (number // 2 % 2) :][:, :64] = 220
            video.write(pixels, Fraction(number, 10))
    return tmp_path / "clip.mp4"


def frames(path: Path) -> list[Frame]:
    with Video(path) as video:
        return list(video)


@pytest.mark.parametrize("blend", ["center", "cosine"])
def test_every_frame_has_its_classes_over_it(onnx_file: Path, clip: Path, tmp_path: Path, blend: Any) -> None:
    """In tiles as an image; times, rate and size stay."""
    told: list[tuple[int, int, str]] = []
    options = SceneOptions(threads=2, tile=64, overlap=32, blend=blend)
    (result,) = predict_scenes(onnx_file, [clip], tmp_path / "out", options, progress=lambda *state: told.append(state))
    assert result.files.all_paths == (tmp_path / "out" / "clip.mp4",)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["clip.mp4", "predictions.sqlite"]
    made, given = frames(result.files.classes), frames(clip)
    assert [frame.seconds for frame in made] == [frame.seconds for frame in given]
    predictor = Predictor(onnx_file, tile=64, overlap=32, blend=blend, threads=1)
    for frame, original in zip(made, given, strict=True):
        expected = overlaid(original.shown, predictor.predict_classes(original.pixels), CLASSES)
        assert np.abs(frame.shown.astype(int) - expected).mean() < 4  # H.264
    assert told[-1] == (5 * 96 * 128, 5 * 96 * 128, "clip")


def test_a_video_is_predicted_once_and_replaced_when_asked(onnx_file: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "seen.mp4"
    (first,) = predict_scenes(onnx_file, [clip], out, ONE)
    assert first.files.classes == out
    assert predict_scenes(onnx_file, [clip], out, ONE)[0].skipped
    with pytest.raises(ConfigError, match="--overwrite"):
        predict_scenes(onnx_file, [clip], out, SceneOptions(threads=1, blend="cosine"))
    with pytest.raises(ConfigError, match="overwrite a scene"):
        predict_scenes(onnx_file, [clip], clip.parent, ONE)


def test_a_damaged_video_leaves_nothing_and_stops_no_other(onnx_file: Path, clip: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(clip.read_bytes()[:600])
    with pytest.raises(FileError, match=r"1 of 2 scenes were left out.*bad\.mp4"):
        predict_scenes(onnx_file, [bad, clip], tmp_path / "out", ONE)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"clip.mp4", "predictions.sqlite"}


def test_an_interruption_in_the_middle_leaves_nothing(
    onnx_file: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = VideoWriter.write

    def interrupted(self: VideoWriter, pixels: NDArray[np.uint8], seconds: Fraction) -> None:
        if seconds > Fraction(1, 4):
            raise KeyboardInterrupt
        write(self, pixels, seconds)

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_scenes(onnx_file, [clip], tmp_path / "out", ONE)
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_few_frames_wait_in_memory(
    onnx_file: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long a video is: what was read and isn't written yet is what the streams are busy with."""
    read, written, most = 0, 0, 0
    iterate, write = Video.__iter__, VideoWriter.write

    def counting(self: Video) -> Iterator[Frame]:
        nonlocal read, most
        for frame in 20 * list(iterate(self)):
            read += 1
            most = max(most, read - written)
            yield frame

    def counted(self: VideoWriter, pixels: NDArray[np.uint8], seconds: Fraction) -> None:
        nonlocal written
        written += 1
        write(self, pixels, seconds)

    monkeypatch.setattr(Video, "__iter__", counting)
    monkeypatch.setattr(VideoWriter, "write", counted)
    predict_scenes(onnx_file, [clip], tmp_path / "out", ONE)
    assert (read, written) == (100, 100)
    assert most <= 4


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"vectors": "gpkg"}, "vectors"),
        ({"confidence": True}, "confidence"),
        ({"nodata": 0.0}, "nodata"),
        ({"resolution": 0.5}, "resolution"),
        ({"overlay": False}, "no-overlay"),
    ],
)
def test_what_a_video_can_not_have_is_refused(
    onnx_file: Path, clip: Path, tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    with pytest.raises(UsageError, match=f"--{name}"):
        predict_scenes(onnx_file, [clip], tmp_path / "out", SceneOptions(**options))
    with pytest.raises(UsageError, match=r"an \.mp4 file"):
        predict_scenes(onnx_file, [clip], tmp_path / "map.tif")
