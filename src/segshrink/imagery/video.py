"""Reading and writing videos frame by frame, with PyAV, which brings FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from segshrink.errors import DataError, FileError
from segshrink.extras import needing
from segshrink.imagery.bands import choose_bands
from segshrink.imagery.georeference import Georeference
from segshrink.imagery.raster_files import Source, is_remote
from segshrink.imagery.scaling import rescaling

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".wmv")
# What FFmpeg may take a file for, and where it may look: playlists would lead to other files and hosts.
_SAFE = {"format_whitelist": "mov,mp4,matroska,webm,avi,mpeg,mpegvideo,asf", "protocol_whitelist": "file"}
# x264's constant quality: 18 can't be told from the original by most people, 23 is its default.
_QUALITY = "20"
# Frames a second where nothing says.
_USUAL_RATE = Fraction(25)


def is_video(source: Source) -> bool:
    """Whether a source is a local file with the suffix of a video."""
    return not is_remote(source) and Path(source).suffix.lower() in VIDEO_SUFFIXES


@dataclass(frozen=True)
class Frame:
    """A frame of a video, upright.

    Attributes:
        pixels: (H, W, bands) as a model takes them.
        shown: (H, W, 3) uint8, red, green and blue.
        seconds: Since the first frame.
    """

    pixels: NDArray[Any]
    shown: NDArray[np.uint8]
    seconds: Fraction


class Video:
    """An open video, whose frames are read once, one after the other; a context manager.

    Args:
        path: The file.
        bands: As ``open_scene`` takes it; a frame's bands are red, green and blue.
        scale: As ``open_scene`` takes it.
        dtype: The numbers a model takes; None: uint8.
        count: How many bands a model takes; None: any number.
        names: What a model's bands are called.

    Attributes:
        name: File name without suffix.
        source: The file.
        height: Rows of an upright frame.
        width: Columns of an upright frame.
        georeference: Its grid, which lies nowhere on the ground.
        files: The file alone.
        notes: Nothing.
        frames: About how many frames it has, at least 1.
        rate: Frames a second, on average.

    Raises:
        FileError: The file is missing, damaged or no video.
        DataError: A band doesn't exist, the bands aren't ``count``, or the model takes other numbers than bytes and no
            ``scale`` says how they become so.
        MissingExtraError: PyAV isn't installed.
    """

    # Named as rasterio does.
    count = 3
    colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    descriptions = (None, None, None)
    dtypes = ("uint8",) * 3

    def __init__(
        self,
        path: Path,
        *,
        bands: Sequence[int | str] | None = None,
        scale: tuple[float, float] | None = None,
        dtype: str | None = None,
        count: int | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        chosen = choose_bands(self, bands, count=count, name=str(path), model=names)
        if dtype not in (None, "uint8") and scale is None:
            raise DataError(
                f"{path} holds uint8 numbers but the model takes {dtype}; say which of its values are dark and bright "
                "with --scale LOW:HIGH"
            )
        self._places = [number - 1 for number in chosen.numbers]
        self._change = None if scale is None else rescaling("uint8", dtype or "uint8", scale)
        self.source, self.name, self.files, self.notes = path, path.stem, [str(path)], list[str]()
        av = _pyav()
        with _reading(path):
            self._container = av.open(f"file:{path}", container_options=_SAFE)
        try:
            if not self._container.streams.video:
                raise FileError(f"{path} holds no video; give a file with one")
            self._stream = self._container.streams.video[0]
            self._stream.thread_type = "AUTO"
            self.rate = Fraction(self._stream.average_rate or self._stream.guessed_rate or _USUAL_RATE)
            decoded = self._decode()
            first = next(decoded, None)
            if first is None:
                raise FileError(f"{path} holds no frame; it is truncated or damaged, copy or export it again")
        except BaseException:  # nobody else has it to close
            self.close()
            raise
        self._decoded = chain([first], decoded)
        turned = round(first.rotation / 90) % 2 == 1
        self.height, self.width = (first.width, first.height) if turned else (first.height, first.width)
        self.georeference = Georeference(self.height, self.width)
        self.frames = self._count()

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame]:
        start: Fraction | None = None
        for number, frame in enumerate(self._decoded):
            time = number / self.rate if frame.pts is None else frame.pts * frame.time_base
            start = time if start is None else start
            shown = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
            if shown.shape[:2] != (self.height, self.width):
                raise DataError(
                    f"the frames of {self.source} change their size from {self.height} × {self.width} to "
                    f"{shown.shape[0]} × {shown.shape[1]} pixels; export it with one size"
                )
            pixels = shown[:, :, self._places]
            yield Frame(pixels if self._change is None else self._change(pixels), shown, time - start)

    def _decode(self) -> Iterator[Any]:
        with _reading(self.source):
            for packet in self._container.demux(self._stream):
                for frame in packet.decode():
                    if packet.is_corrupt or frame.is_corrupt:
                        raise FileError(f"{self.source} is truncated or damaged; copy or export it again")
                    yield frame

    def _count(self) -> int:
        stream, container = self._stream, self._container
        seconds = 0 if container.duration is None else Fraction(container.duration, 1_000_000)
        return max(1, stream.frames or round(seconds * self.rate))


class VideoWriter:
    """Writes an MP4 file of H.264, which everything plays; a context manager that completes the file.

    Args:
        path: The file, replaced where it exists.
        height: Rows of a frame; an odd one is repeated at the bottom, as the format wants even sides.
        width: Columns of a frame, likewise.
        rate: Frames a second.

    Raises:
        OSError: The file can't be written.
        MissingExtraError: PyAV isn't installed.
    """

    def __init__(self, path: Path, *, height: int, width: int, rate: Fraction) -> None:
        self._rate, self._last = rate, -1
        self._odd = ((0, height % 2), (0, width % 2), (0, 0))
        self._container = _pyav().open(f"file:{path}", "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=rate, options={"crf": _QUALITY})
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()

    def write(self, pixels: NDArray[np.uint8], seconds: Fraction) -> None:
        """Write the next frame, (height, width, 3), at the step of the frame rate that is nearest to its time."""
        frame = _pyav().VideoFrame.from_ndarray(np.pad(pixels, self._odd, mode="edge"), format="rgb24")
        self._last = frame.pts = max(self._last + 1, round(seconds * self._rate))
        frame.time_base = 1 / self._rate
        self._container.mux(self._stream.encode(frame))


def _pyav() -> Any:
    with needing("predicting videos", "video"):
        import av
    return av


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except _pyav().FFmpegError as error:
        raise FileError(
            f"can't read the video {path} ({error.strerror}); it is missing, damaged or of a kind that isn't read "
            "here, copy it again or export it as .mp4"
        ) from error
