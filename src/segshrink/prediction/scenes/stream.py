"""From a scene's pixels to classes and probabilities: tiles are read, run and stitched at the same time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from segshrink.classes import IGNORE_INDEX, ClassMap
from segshrink.imagery.cog import encode_probabilities
from segshrink.imagery.scenes import Scene
from segshrink.imagery.video import Frame, Video
from segshrink.machine import default_threads
from segshrink.model_file import runs_in_torch
from segshrink.prediction.backends import Backend, open_backend
from segshrink.prediction.logits import most_likely, softmax_in_place
from segshrink.prediction.scenes.options import SceneOptions
from segshrink.prediction.scenes.tiles import RollingBlend, Span, Weights, lay_out
from segshrink.prediction.tiled import Blending, Tile, Tiling, predict_tiles
from segshrink.tiling import Window

if TYPE_CHECKING:
    from segshrink.prediction.backends import Model

# Runtimes whose calls may run at once in several threads: they share one copy of the model.
_SHAREABLE = ("onnxruntime", "openvino")
# Bytes of pixels that are read at once, about: a row of tiles of a scene of 15,000 columns in three bytes.
_SPAN_BYTES = 24_000_000

Result = TypeVar("Result")
# Pixels (h, w, bands), and which are valid, (h, w), None when all are.
Pixels = tuple[NDArray[Any], NDArray[np.bool_] | None]
# Runs the model on a batch of tiles; gives each tile's classes or logits.
RunTiles = Callable[[Backend, NDArray[Any], Sequence[Tile]], list[NDArray[Any]]]


class Streams:
    """Threads that run a model, one core each; a context manager.

    A runtime that computes one image on one thread leaves no core waiting for another, so that several images at once
    are quicker than one image on several cores. torch is left to spread one image over the cores, since it has one
    setting for all threads; so is a model that is given as an object, of which there is one.

    Args:
        source: What ``open_backend`` takes.
        runtime: As ``open_backend`` takes it.
        cores: How many to use; by default all, or ``OMP_NUM_THREADS`` if less.
        precision: As ``open_backend`` takes it.
        classes: As ``open_backend`` takes them.

    Attributes:
        backend: The first thread's backend, which describes the model.
        count: How many threads.
    """

    def __init__(
        self,
        source: Model | Sequence[Model],
        *,
        runtime: str | None = None,
        cores: int | None = None,
        precision: str = "auto",
        classes: ClassMap | None = None,
    ) -> None:
        sources = [source] if isinstance(source, str) or not isinstance(source, Sequence) else source
        spread = any(not isinstance(each, str | Path) or runs_in_torch(each) for each in sources)
        self.count = 1 if spread else cores or default_threads()
        settings: dict[str, Any] = {"runtime": runtime, "precision": precision, "classes": classes}
        self._open = partial(open_backend, source, threads=cores, streams=self.count, **settings)
        self.backend = self._open()
        self._unused = [self.backend]
        self._thread = threading.local()
        self._executor = ThreadPoolExecutor(self.count, thread_name_prefix="tiles")

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown(cancel_futures=True)

    def run(self, tasks: Iterator[Callable[[Backend], Result]]) -> Iterator[Result]:
        """Do tasks at once, each with a backend of its thread, and give their results in the order of the tasks.

        Tasks are taken from the iterator a few ahead only, so that few results wait in memory.
        """
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._executor.submit(self._with_backend, task))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _with_backend(self, task: Callable[[Backend], Any]) -> Any:
        if self.backend.runtime in _SHAREABLE:
            return task(self.backend)
        if not hasattr(self._thread, "backend"):
            try:
                self._thread.backend = self._unused.pop()
            except IndexError:
                self._thread.backend = self._open()
        return task(self._thread.backend)


@dataclass(frozen=True)
class Piece:
    """A finished part of a scene, or a frame of a video.

    Attributes:
        window: Where it lies.
        pixels: (h, w, bands) pixels of the scene.
        classes: (h, w) uint8 class indices, 255 where the scene has no data.
        probabilities: (C, h, w) uint8 in 0..254, 255 where there is no data; None when not asked for.
        confidence: (h, w) uint8, the probability of the class in 0..254; 255 where there is none; None as above.
        seconds: When a frame is shown, since the first; 0 of scenes.
        valid: (h, w), which pixels have a value; None when all have.
    """

    window: Window
    pixels: NDArray[Any]
    classes: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None = None
    confidence: NDArray[np.uint8] | None = None
    seconds: Fraction = Fraction(0)
    valid: NDArray[np.bool_] | None = None


class _Batch(NamedTuple):
    """Some tiles of a span: for each its classes or logits, None where the model had nothing to see."""

    span: Span
    pixels: Pixels
    tiles: tuple[Tile, ...]
    values: list[NDArray[Any] | None]


def predict_pieces(
    scene: Scene | Video, streams: Streams, tiling: Tiling, options: SceneOptions
) -> Generator[Piece, None, None]:
    """Predict a scene and give it in pieces, from the top left, row by row; they cover it and don't overlap.

    The pieces of a video are its frames, some of which are predicted at once.

    One thread reads while the streams run the model and the caller writes. What is held in memory depends on the size
    of tiles, with blending on the scene's width too, never on its height. Close the iterator before the scene, or take
    all of it: until then a thread may be reading.
    """
    if isinstance(scene, Video):
        yield from streams.run(partial(_segmented, frame, tiling, options.blending) for frame in scene)
        return
    lay = partial(
        lay_out,
        scene.height,
        scene.width,
        tile=tiling.tile,
        overlap=tiling.overlap,
        align=tiling.stride,
        centered=options.blending == "center",
        span_pixels=_SPAN_BYTES // (scene.bands * np.dtype(scene.dtype).itemsize),
    )
    run_tiles: RunTiles = partial(_kept_values, as_logits=options.needs_probabilities)
    blend = None
    if options.blending == "cosine":
        windows = (tile.window for span in lay() for tile in span.tiles)
        run_tiles = partial(_weighted_logits, Weights(windows, overlap=tiling.overlap))
        blend = RollingBlend(streams.backend.num_classes, (tile for span in lay() for tile in span.tiles))
    reader = ThreadPoolExecutor(1, thread_name_prefix="read")
    try:
        batches = streams.run(_tasks(scene, lay(), tiling.batch, run_tiles, reader))
        for span, of_span in groupby(batches, key=lambda batch: batch.span):
            yield _piece(span, of_span, blend, streams.backend.num_classes, options)
    finally:
        reader.shutdown(cancel_futures=True)


def _segmented(frame: Frame, tiling: Tiling, blend: Blending, backend: Backend) -> Piece:
    def classify(tiles: NDArray[Any]) -> NDArray[Any]:
        return backend.classify(tiles)[:, np.newaxis]

    answer = backend.run if blend == "cosine" else classify
    cut = {"tile": tiling.tile, "overlap": tiling.overlap, "align": tiling.stride, "batch": tiling.batch}
    values = predict_tiles(frame.pixels, answer, blend=blend, **cut)
    classes = most_likely(values) if blend == "cosine" else values[0]
    return Piece(Window(0, 0, *classes.shape), frame.shown, classes, seconds=frame.seconds)


def _tasks(
    scene: Scene, spans: Iterator[Span], batch: int, run_tiles: RunTiles, reader: ThreadPoolExecutor
) -> Iterator[Callable[[Backend], _Batch]]:
    """Yield what the streams have to do; each span is being read before the one before it is handed out."""
    reads = ((span, reader.submit(scene.read, span.window)) for span in spans)
    following = next(reads, None)
    while following is not None:
        (span, read), following = following, next(reads, None)
        for tiles in span.batches(batch):
            yield partial(_run, span, read, tiles, run_tiles)


def _run(span: Span, read: Future[Pixels], tiles: tuple[Tile, ...], run_tiles: RunTiles, backend: Backend) -> _Batch:
    pixels, valid = read.result()
    visible = [tile for tile in tiles if valid is None or valid[tile.window.slices_in(span.window)].any()]
    values: dict[Tile, NDArray[Any]] = {}
    if visible:
        images = [pixels[tile.window.slices_in(span.window)] for tile in visible]
        stacked = images[0][np.newaxis] if len(images) == 1 else np.stack(images)  # backends copy what they must
        values = dict(zip(visible, run_tiles(backend, stacked, visible), strict=True))
    return _Batch(span, (pixels, valid), tiles, [values.get(tile) for tile in tiles])


def _kept_values(
    backend: Backend, images: NDArray[Any], tiles: Sequence[Tile], *, as_logits: bool
) -> list[NDArray[Any]]:
    results = backend.run(images) if as_logits else backend.classify(images)
    return [values[..., *tile.kept.slices_in(tile.window)] for tile, values in zip(tiles, results, strict=True)]


def _weighted_logits(
    weights: Weights, backend: Backend, images: NDArray[Any], tiles: Sequence[Tile]
) -> list[NDArray[Any]]:
    return [values * weights(tile.window) for tile, values in zip(tiles, backend.run(images), strict=True)]


def _piece(
    span: Span, batches: Iterator[_Batch], blend: RollingBlend | None, channels: int, options: SceneOptions
) -> Piece:
    """Put a span's tiles together, in order, blended with what came before."""
    shape = span.kept.height, span.kept.width
    sure = options.confidence or options.vectors is not None
    classes = np.full(shape, IGNORE_INDEX, np.uint8)
    probabilities = np.full((channels, *shape), IGNORE_INDEX, np.uint8) if options.probabilities else None
    confidence = np.full(shape, IGNORE_INDEX, np.uint8) if sure else None
    for batch in batches:
        for tile, values in zip(batch.tiles, batch.values, strict=True):
            if blend is not None:
                if values is None:
                    values = np.zeros((channels, tile.window.height, tile.window.width), np.float32)
                values = blend.add(tile, values)
            if values is None:
                continue
            place = tile.kept.slices_in(span.kept)
            classes[place] = values if values.ndim == 2 else most_likely(values)
            if probabilities is None and confidence is None:
                continue
            shares = np.array(values)
            softmax_in_place(shares)
            if confidence is not None:
                confidence[place] = encode_probabilities(shares.max(axis=0))
            if probabilities is not None:
                probabilities[:, *place] = encode_probabilities(shares)
    pixels, valid = batch.pixels
    kept = span.kept.slices_in(span.window)
    if valid is not None:
        valid = valid[kept]
        for layer in (classes, probabilities, confidence):
            if layer is not None:
                layer[..., ~valid] = IGNORE_INDEX
    return Piece(span.kept, pixels[kept], classes, probabilities, confidence, valid=valid)
