"""Videos frame by frame: what was written is read, at its time; what isn't one is refused."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from segshrink.errors import DataError, FileError, MissingExtraError
from segshrink.imagery.video import Video, VideoWriter, is_video

av = pytest.importorskip("av")

COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (120, 120, 120))


def record(path: Path, *, size: tuple[int, int] = (48, 64), rate: Fraction = Fraction(30000, 1001)) -> Path:
    """A video of four plain frames; the third is shown for two steps."""
    with VideoWriter(path, height=size[0], width=size[1], rate=rate) as video:
        for color, step in zip(COLORS, (0, 1, 2, 4), strict=True):
            video.write(np.full((*size, 3), color, np.uint8), step / rate)
    return path


def test_frames_come_back_at_their_time(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    with Video(record(tmp_path / "a.mp4", rate=rate)) as video:
        assert (video.height, video.width, video.frames, video.name) == (48, 64, 4, "a")
        frames = list(video)
    assert [frame.seconds for frame in frames] == pytest.approx([step / rate for step in (0, 1, 2, 4)], abs=1e-3)
    for frame, color in zip(frames, COLORS, strict=True):
        assert frame.pixels.shape == (48, 64, 3)
        assert np.abs(frame.pixels.mean((0, 1)) - color).max() < 6  # H.264 in YUV


def test_a_steady_rate_stays_what_it_was(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", height=32, width=32, rate=Fraction(24)) as video:
        for number in range(12):
            video.write(np.full((32, 32, 3), 20 * number, np.uint8), Fraction(number, 24))
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 24
        assert container.streams.video[0].codec_context.name == "h264"


def test_odd_sides_are_made_even(tmp_path: Path) -> None:
    with Video(record(tmp_path / "a.mp4", size=(33, 47))) as video:
        assert (video.height, video.width) == (34, 48)


def test_bands_are_chosen_as_of_images(tmp_path: Path) -> None:
    path = record(tmp_path / "a.mp4")
    with Video(path, bands=["blue", 1], count=2) as video:
        first = next(iter(video))
    assert np.array_equal(first.pixels, first.shown[:, :, [2, 0]])
    with Video(path, scale=(0, 100), dtype="float32") as video:
        first = next(iter(video))
    assert np.allclose(first.pixels, first.shown / 100, atol=1e-6)
    with pytest.raises(DataError, match=r"takes 4 bands but .*a\.mp4 has 3 bands"):
        Video(path, count=4)
    with pytest.raises(DataError, match="--scale"):
        Video(path, dtype="uint16")


def test_what_is_no_whole_video_is_refused(tmp_path: Path) -> None:
    whole = record(tmp_path / "a.mp4", rate=Fraction(25)).read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.mp4").write_text("no video")
    # A playlist would have FFmpeg read what it names.
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'a.mp4'}\n")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path / 'a.mp4'}'\n")
    for name in ("half", "text", "list", "concat", "absent"):
        with pytest.raises(FileError, match=rf"{name}\.mp4"):
            list(Video(tmp_path / f"{name}.mp4"))


def test_videos_are_told_by_their_names() -> None:
    assert is_video(Path("a/b.MOV"))
    assert not is_video("a/b.tif")
    assert not is_video("https://host/a.mp4")


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = record(tmp_path / "a.mp4")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"\[video\]"):
        Video(path)
